// Calls that the compiler inlines, in a namespace, with an alias and a static function: what a symbolizer has to name.
#include <cstdio>

namespace shapes {

volatile long sink;

static inline __attribute__((always_inline)) long innermost(long value) {
  sink += value;
  return value * 3;
}

static inline __attribute__((always_inline)) long middle(long value) {
  return innermost(value + 1) + innermost(value + 2);
}

template <typename T>
__attribute__((noinline)) T outer(T value) {
  return static_cast<T>(middle(value)) + 1;
}

}  // namespace shapes

extern "C" __attribute__((noinline)) long plain(long value) { return shapes::outer<long>(value) - 1; }
extern "C" long aaa_alias(long) __attribute__((alias("plain")));
extern "C" long zzz_alias(long) __attribute__((alias("plain")));

__attribute__((noinline)) static long hidden(long value) { return plain(value) + shapes::outer<int>(static_cast<int>(value)); }

int main() {
  std::puts("ready");
  std::fflush(stdout);
  std::printf("%ld\n", hidden(std::getchar()));
  return 0;
}
