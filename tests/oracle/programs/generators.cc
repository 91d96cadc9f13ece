// Written after the rules were final: C++20 coroutines, virtual calls, lambdas in algorithms, exceptions out of all of them.
#include <algorithm>
#include <coroutine>
#include <cstdio>
#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <utility>
#include <string>
#include <vector>

struct Generator {
    struct promise_type {
        int value = 0;
        std::exception_ptr error;
        Generator get_return_object() { return Generator{std::coroutine_handle<promise_type>::from_promise(*this)}; }
        std::suspend_always initial_suspend() noexcept { return {}; }
        std::suspend_always final_suspend() noexcept { return {}; }
        std::suspend_always yield_value(int given)
        {
            value = given;
            return {};
        }
        void return_void() {}
        void unhandled_exception() { error = std::current_exception(); }
    };
    std::coroutine_handle<promise_type> handle;
    explicit Generator(std::coroutine_handle<promise_type> given) : handle(given) {}
    Generator(Generator &&other) noexcept : handle(std::exchange(other.handle, nullptr)) {}
    ~Generator()
    {
        if (handle)
            handle.destroy();
    }
    bool next()
    {
        handle.resume();
        if (handle.promise().error)
            std::rethrow_exception(handle.promise().error);
        return !handle.done();
    }
};

static Generator numbers(int n)
{
    for (int i = 0; i < n; i++) {
        if (i == 5)
            throw std::out_of_range("five");
        co_yield i * i;
    }
}

struct Shape {
    virtual ~Shape() = default;
    virtual double area(int depth) const = 0;
};

struct Square : Shape {
    double side;
    explicit Square(double given) : side(given) {}
    double area(int depth) const override { return depth ? area(depth - 1) + side : side * side; }
};

struct Lazy : Shape {
    std::function<double(int)> made;
    explicit Lazy(std::function<double(int)> given) : made(std::move(given)) {}
    double area(int depth) const override
    {
        if (depth > 3)
            throw std::domain_error("deep");
        return made(depth);
    }
};

int main()
{
    int sum = 0;
    for (int n : {3, 8}) {
        try {
            auto generator = numbers(n);
            while (generator.next())
                sum += generator.handle.promise().value;
        } catch (const std::out_of_range &) {
            sum++;
        }
    }
    std::vector<std::unique_ptr<Shape>> shapes;
    shapes.push_back(std::make_unique<Square>(2));
    shapes.push_back(std::make_unique<Lazy>([&](int depth) { return shapes[0]->area(depth) * 2; }));
    std::map<std::string, double> areas;
    for (int depth = 0; depth < 6; depth += 5) {
        for (const auto &shape : shapes) {
            try {
                std::ostringstream name;
                name << "shape " << depth;
                areas[name.str()] += shape->area(depth);
            } catch (const std::exception &error) {
                sum += error.what()[0];
            }
        }
    }
    std::vector<std::string> words{"pear", "fig", "apple", "date"};
    std::sort(words.begin(), words.end(), [](const auto &a, const auto &b) { return a.size() < b.size() || (a.size() == b.size() && a < b); });
    std::printf("%d %zu %s\n", sum, areas.size(), words[0].c_str());
    return 0;
}
