"""The parts a run is composed of; a package only so that the wheel and the editable install both find it."""
