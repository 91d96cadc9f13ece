// The types of the kernel that the programs name, as a BTF of their own.
//
// CO-RE relocates each field by its name: libbpf looks every structure that a program names up among all types of the kernel (130,000), and reads them
// for that once more. Of what it looks at, only the structures of those names matter, and what they hold by value.
#ifndef UNSPOOL_KERNEL_TYPES_H
#define UNSPOOL_KERNEL_TYPES_H

#include <bpf/btf.h>

// The structures of `kernel` whose names `program` has, with all that they hold by value; pointers lead nowhere. To be freed; NULL when that cannot be.
struct btf *kernel_types_named(const struct btf *kernel, const struct btf *program);

#endif
