"""How one training step is computed: in parts where memory asks for it, without work that is
already done, and with the fast kernels that give equal results."""
