// C++ exceptions: through frames with and without clean-ups, thrown again, nested, caught in a handler, thrown out of a signal handler, forced.
#include <csignal>
#include <cstdio>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include <setjmp.h>
#include <pthread.h>
#include <unistd.h>

#define KEEP __attribute__((noinline))

static volatile int sink;

KEEP int leaf(int n) { return n + sink; }

struct Cleaned {
    int n;
    explicit Cleaned(int value) : n(value) {}
    KEEP ~Cleaned() { sink += leaf(n); }
};

struct Error : std::runtime_error {
    using std::runtime_error::runtime_error;
};

KEEP int throws(int n)
{
    if (n > 2)
        throw Error("deep");
    return leaf(n);
}

KEEP int through(int depth, int n)
{
    Cleaned one(depth);
    if (!depth)
        return throws(n);
    int result = through(depth - 1, n) + leaf(depth);
    return result;
}

KEEP int plain(int depth, int n) { return depth ? plain(depth - 1, n) + leaf(depth) : through(3, n); }

KEEP int catches(int n)
{
    try {
        return plain(3, n);
    } catch (const Error &error) {
        return leaf(error.what()[0]);
    }
}

KEEP int rethrows(int n)
{
    try {
        try {
            return plain(2, n);
        } catch (const std::logic_error &) {
            return -1;
        } catch (...) {
            Cleaned two(n);
            throw;
        }
    } catch (const std::exception &) {
        return leaf(n);
    }
}

KEEP int in_handler(int n)
{
    try {
        throws(n);
    } catch (...) {
        try {
            throw 5;
        } catch (int value) {
            return catches(value);
        }
    }
    return 0;
}

KEEP int kept(int n)
{
    std::exception_ptr held;
    try {
        through(1, n);
    } catch (...) {
        held = std::current_exception();
    }
    try {
        if (held)
            std::rethrow_exception(held);
    } catch (const Error &) {
        return leaf(1);
    }
    return 0;
}

static void handler(int number)
{
    sink += leaf(number);
    throw number;
}

KEEP int faults(volatile int *where)
{
    try {
        Cleaned three(3);
        return *where;
    } catch (int number) {
        return leaf(number);
    }
}

KEEP int signalled()
{
    struct sigaction action = {};
    action.sa_handler = handler;
    action.sa_flags = SA_NODEFER;
    sigaction(SIGSEGV, &action, nullptr);
    return faults(reinterpret_cast<int *>(16));
}

KEEP int library(const std::string &text)
{
    try {
        return std::stoi(text) + static_cast<int>(std::vector<int>(3).at(text.size()));
    } catch (const std::exception &error) {
        return leaf(error.what()[0]);
    }
}

static jmp_buf out;
[[noreturn]] static void terminated()
{
    sink += leaf(1);
    longjmp(out, 1);
}
KEEP int promised(int n) noexcept { return throws(n); }

KEEP int broken_promise()
{
    std::set_terminate(terminated);
    if (setjmp(out))
        return leaf(2);
    return promised(3);
}

static void *leaves_thread(void *argument)
{
    Cleaned four(4);
    sink += leaf(1);
    pthread_exit(argument);
}

int main()
{
    for (int n = 1; n < 5; n += 2)
        sink += catches(n) + rethrows(n) + in_handler(n) + kept(n);
    sink += signalled() + library("12") + library("words") + broken_promise();
    pthread_t thread;
    pthread_create(&thread, nullptr, leaves_thread, nullptr);
    pthread_join(thread, nullptr);
    std::puts("done");
    return 0;
}
