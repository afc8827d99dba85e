"""The roof: command line, job entry point, control loop, configurations."""
