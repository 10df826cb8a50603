// Clocks, and numbers in a table.
#ifndef COST_HPP
#define COST_HPP

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <time.h>
#include <vector>

/// Microseconds.
inline double now() {
    using namespace std::chrono;
    return duration<double, std::micro>(steady_clock::now().time_since_epoch()).count();
}

/// Microseconds of CPU that a process has used, all of its threads.
inline double cpu_of(pid_t process) {
    clockid_t clock;
    timespec time{};
    if (::clock_getcpuclockid(process, &clock) == 0) ::clock_gettime(clock, &time);
    return static_cast<double>(time.tv_sec) * 1e6 + static_cast<double>(time.tv_nsec) / 1e3;
}

/// Numbers of several rounds.
class Samples {
public:
    void add(double value) { values_.push_back(value); }
    bool empty() const { return values_.empty(); }
    double operator[](std::size_t round) const { return values_[round]; }
    std::size_t size() const { return values_.size(); }
    double least() const { return *std::min_element(values_.begin(), values_.end()); }
    double most() const { return *std::max_element(values_.begin(), values_.end()); }
    double median() const {
        auto sorted = values_;
        std::sort(sorted.begin(), sorted.end());
        std::size_t middle = sorted.size() / 2;
        return sorted.size() % 2 == 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
    }

private:
    std::vector<double> values_;
};

/// The cost of one message or call, in microseconds.
struct Cost {
    Samples time, host, worker;
};

inline std::string text(const char *format, double a, double b = 0, double c = 0) {
    char text[96];
    std::snprintf(text, sizeof text, format, a, b, c);
    return text;
}

/// Three digits.
inline std::string digits(double value) { return text(value < 9.995 ? "%.2f" : value < 99.95 ? "%.1f" : "%.0f", value); }

#endif
