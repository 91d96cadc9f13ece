// C++ calls through virtual functions, lambdas, std::function and exceptions in flight, DEPTH deep (first argument), then waits.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace tree {

struct Node {
  virtual ~Node() = default;
  virtual long visit(int depth, const std::function<long(int)>& then) = 0;
};

[[gnu::noinline]] static long wait_here() {
  std::puts("ready");
  std::fflush(stdout);
  for (;;) pause();
}

template <typename T>
[[gnu::noinline]] long catching(T&& call) {
  try {
    throw std::runtime_error("on the way down");
  } catch (const std::exception& error) {
    return call() + static_cast<long>(std::string(error.what()).size());
  }
}

struct Left : Node {
  long visit(int depth, const std::function<long(int)>& then) override;
};

struct Right : Node {
  std::vector<double> kept = std::vector<double>(7, 1.0);
  long visit(int depth, const std::function<long(int)>& then) override {
    if (depth == 0) return wait_here();
    std::unique_ptr<Node> next = std::make_unique<Left>();
    return next->visit(depth - 1, then) + static_cast<long>(kept.size());
  }
};

long Left::visit(int depth, const std::function<long(int)>& then) {
  if (depth == 0) return wait_here();
  if (depth % 16 == 0) return catching([&] { return Right().visit(depth - 1, then); }) + then(depth);
  return Right().visit(depth - 1, then) + then(depth);
}

}  // namespace tree

int main(int argc, char** argv) {
  return static_cast<int>(tree::Left().visit(argc > 1 ? std::atoi(argv[1]) : 1000, [](int depth) { return depth * 2L; }));
}
