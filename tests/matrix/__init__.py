"""What people bring with them, each kind through each command."""
