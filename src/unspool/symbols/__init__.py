"""Names of addresses: functions, source lines and inlined calls from ELF, DWARF, the kernel and JIT maps."""
