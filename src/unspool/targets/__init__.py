"""Where registers, memory and mappings come from: live processes and core dumps."""
