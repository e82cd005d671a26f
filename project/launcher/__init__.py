"""Everything on one machine: what `manage.py larder` checks, starts, watches and stops."""
