"""Whole compositions; a package only so that the wheel and the editable install both find it."""
