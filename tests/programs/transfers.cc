// Leaves functions in every way, for ever: by return, by exceptions with clean-ups and rethrows, by siglongjmp; and a timer's handler interrupts it.
#include <sys/time.h>
#include <unistd.h>

#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <map>
#include <stdexcept>
#include <string>

static sigjmp_buf back;
static volatile int hits;

struct Guard {
  std::string text;
  ~Guard() { hits = hits + static_cast<int>(text.size()); }
};

[[gnu::noinline]] static int thrower(int n) {
  Guard guard{std::string(n % 40, 'x')};
  if (n % 7 == 0) throw std::runtime_error("x" + std::to_string(n));
  if (n % 11 == 0) throw n;
  return n < 2 ? 1 : thrower(n - 1) + 1;
}

[[gnu::noinline]] static int catcher(int n) {
  try {
    return thrower(n);
  } catch (const std::exception& error) {
    return static_cast<int>(std::string(error.what()).size());
  } catch (int first) {
    try {
      if (first % 2) throw;
    } catch (int second) {
      return second;
    }
    return first;
  }
}

[[gnu::noinline]] static void jumper(int n) {
  if (n == 0) siglongjmp(back, 1);
  jumper(n - 1);
  hits = hits + 1;
}

static void tick(int) {
  std::map<int, std::string> kept;
  for (int i = 0; i < 5; i++) kept[i] = std::to_string(i);
  hits = hits + static_cast<int>(kept.size());
}

int main() {
  struct sigaction action = {};
  action.sa_handler = tick;
  action.sa_flags = SA_RESTART;
  sigaction(SIGALRM, &action, nullptr);
  std::puts("ready");
  std::fflush(stdout);
  itimerval often = {{0, 700}, {0, 700}};
  setitimer(ITIMER_REAL, &often, nullptr);
  for (int i = 0;; i++) {
    catcher(i % 50 + 3);
    if (!sigsetjmp(back, 1)) jumper(i % 9);
  }
}
