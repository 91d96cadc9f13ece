// C++ with exceptions, cleanups, cold parts and virtual calls: GCC's own choice of frames.
#include <stdexcept>
#include <string>
#include <vector>

struct Guard {
    std::vector<int> &log;
    explicit Guard(std::vector<int> &l) : log(l) { log.push_back(1); }
    ~Guard() { log.push_back(2); }
};
struct Shape {
    virtual ~Shape() = default;
    virtual double area(double x) const = 0;
};
struct Round : Shape {
    double area(double x) const override {
        if (x < 0) throw std::invalid_argument("negative " + std::to_string(x));
        return x * x * 3.14;
    }
};
__attribute__((noinline)) double measure(const Shape &shape, double x, std::vector<int> &log) {
    Guard guard(log);
    try {
        return shape.area(x) + shape.area(x - 1);
    } catch (const std::exception &error) {
        log.push_back((int)std::string(error.what()).size());
        if (x < -10) throw;
        return -1;
    }
}
int run(int n) {
    std::vector<int> log;
    double total = 0;
    for (int i = -n; i < n; i++) {
        try {
            total += measure(Round(), i, log);
        } catch (...) {
            total -= 1;
        }
    }
    return (int)total + (int)log.size();
}
