// The words of both homes: BPF (clang -target bpf) and user space. What differs between them is here and in memory.h, nowhere else.
#ifndef UNSPOOL_TYPES_H
#define UNSPOOL_TYPES_H

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef signed char s8;
typedef short s16;
typedef int s32;
typedef long long s64;

// Words that are read out of byte buffers: the compiler must not think that the two have nothing to do with each other.
typedef u64 __attribute__((may_alias)) word64;
typedef u32 __attribute__((may_alias)) word32;

#define ALWAYS_INLINE static inline __attribute__((always_inline, unused))

#ifdef __bpf__

// A function that the verifier checks once, by itself: global, its arguments are the walk and numbers. Every one starts with `if (!w)`,
// because the verifier takes a pointer argument of a global function as possibly null (before kernel 6.8 nothing can say otherwise).
#define SHARED __attribute__((noinline))

// A callback of LOOP.
#define LOOP_BODY static __attribute__((noinline))

// Calls `body(index, context)` for index 0..times-1 until it returns 1. `context` must lie on the stack (bpf_loop).
#define LOOP(times, body, context) bpf_loop((times), (body), (context), 0)

#else

#define SHARED static __attribute__((unused))
#define LOOP_BODY static inline
#define LOOP(times, body, context) loop_plainly((times), (body), (context))

ALWAYS_INLINE long loop_plainly(u32 times, long (*body)(u64, void *), void *context) {
    for (u32 index = 0; index < times; index++)
        if (body(index, context)) break;
    return 0;
}

#endif

// `index & mask`, kept in the code: where the compiler knows the range it would leave the mask out, and the verifier, which does not know, refuses the access.
ALWAYS_INLINE u32 masked(u32 index, u32 mask) {
    __asm__ volatile("" : "+r"(index));
    return index & mask;
}

// What a LOOP_BODY is called with: a structure on the stack that holds the walk (bpf_loop takes stack pointers only).
struct walk;
struct loop {
    struct walk *w;
};

#endif
