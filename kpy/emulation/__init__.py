"""An emulated root: what a RUN sees of users, owners and modes where the builder has no privileges at all."""
