"""Which kernel runs a recurrence on a device, and what keeps it from a faster one."""
