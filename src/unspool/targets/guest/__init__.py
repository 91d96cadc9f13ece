"""Virtual machines of this host, looked at from outside: their vCPUs' registers, their memory, and the Linux kernel inside."""
