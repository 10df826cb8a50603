// Measures IpcPipe beside a model of message passing over datagrams, and prints a table in Markdown.
//
//     measure/measure [--quick]
//     measure/measure trace datagrams|sealane ROW COUNT     # One row alone, COUNT times: for strace(1).
#include "host.hpp"

static constexpr Row rows[] = {
    {"call", "call of 64 B", Kind::call, 64, 2000},
    {"fd", "call of 64 B with a descriptor", Kind::call_with_fd, 64, 2000},
    {"call4k", "call of 4 KiB", Kind::call, 4096, 2000},
    {"call64k", "call of 64 KiB", Kind::call, 64 << 10, 300},
    {"call1m", "call of 1 MiB", Kind::call, 1 << 20, 30},
    {"frame", "frame: 2 messages of 500 B, 1 back", Kind::frame, 500, 2000},
    {"statistics", "128 KiB of statistics as a message", Kind::statistics, 128 << 10, 300},
    {"lent", "128 KiB of statistics as a loan", Kind::lent, 128 << 10, 300},
};

static Samples total(const Cost &cost) {
    Samples both;
    for (std::size_t i = 0; i < cost.host.size(); i++) both.add(cost.host[i] + cost.worker[i]);
    return both;
}

static std::string cell(const Cost &cost) {
    if (cost.time.empty()) return "EMSGSIZE";
    return digits(cost.time.median()) + " (" + digits(cost.host.median()) + " + " + digits(cost.worker.median()) + ")";
}

/// The median of the rounds' ratios.
static std::string ratio(const Samples &a, const Samples &b) {
    Samples ratios;
    for (std::size_t i = 0; i < std::min(a.size(), b.size()); i++) ratios.add(b[i] / a[i]);
    return ratios.empty() ? "" : text("%.2f", ratios.median());
}

static void print_costs(int rounds, int divisor) {
    Host<DatagramPipe> datagrams;
    Host<IpcPipe> sealane;
    datagrams.start();
    sealane.start();
    constexpr std::size_t count = std::size(rows);
    Cost costs[count][2];
    for (int round = 0; round < rounds; round++) {
        for (std::size_t i = 0; i < count; i++) {
            int times = std::max(rows[i].count / divisor, 2);
            auto run_datagrams = [&] {
                // The header of a message that is too large was sent.
                if (!datagrams.run(rows[i], times, costs[i][0])) datagrams.start();
            };
            auto run_sealane = [&] { require(sealane.run(rows[i], times, costs[i][1]), rows[i].name); };
            if (round % 2 == 0) run_datagrams();
            run_sealane();
            if (round % 2 == 1) run_datagrams();
        }
    }
    std::puts("| µs (CPU of host + worker) | datagrams | sealane | time | CPU |\n|---|--:|--:|--:|--:|");
    for (std::size_t i = 0; i < count; i++) {
        auto &[a, b] = costs[i];
        std::printf("| %s | %s | %s | %s | %s |\n", rows[i].name, cell(a).c_str(), cell(b).c_str(), ratio(a.time, b.time).c_str(),
                    ratio(total(a), total(b)).c_str());
    }
}

static std::string cell(const Samples &times) {
    return digits(times.median() / 1e3) + " (" + digits(times.least() / 1e3) + " to " + digits(times.most() / 1e3) + ")";
}

static void print_events(int rounds) {
    static constexpr std::size_t rings[] = {0, 1 << 20, 256 << 10};
    static constexpr const char *names[] = {"started, until the first answer", "the same with rings of 1 MiB",
                                            "the same with rings of 256 KiB"};
    Host<DatagramPipe> datagrams;
    Host<IpcPipe> sealane;
    Samples killed[2], started, with_ring[std::size(rings)];
    for (int round = 0; round < rounds; round++) {
        started.add(datagrams.start());
        datagrams.stop();
        for (std::size_t i = 0; i < std::size(rings); i++) {
            with_ring[i].add(sealane.start(rings[i]));
            sealane.stop();
        }
        killed[0].add(datagrams.kill());
        killed[1].add(sealane.kill());
    }
    std::puts("\n| ms (lowest to highest) | datagrams | sealane |\n|---|--:|--:|");
    for (std::size_t i = 0; i < std::size(rings); i++) {
        std::printf("| %s | %s | %s |\n", names[i], i == 0 ? cell(started).c_str() : "", cell(with_ring[i]).c_str());
    }
    std::printf("| worker killed during a call, until it returns | %s | %s |\n", cell(killed[0]).c_str(),
                cell(killed[1]).c_str());

    std::puts("\n| messages that fit while the worker is stopped | datagrams | sealane |\n|---|--:|--:|");
    std::printf("| of 500 B | %d | %d |\n", datagrams.fill_up(500), sealane.fill_up(500));
    std::printf("| of 128 KiB | %d | %d |\n", datagrams.fill_up(128 << 10), sealane.fill_up(128 << 10));
}

template <typename Pipe> static int trace(const std::string &key, int count) {
    for (const Row &row : rows) {
        if (row.key != key) continue;
        Host<Pipe> host;
        host.start();
        Cost cost;
        require(host.run(row, count, cost), row.name);
        std::printf("%s: %s\n", row.name, cell(cost).c_str());
        return 0;
    }
    require(false, "row");
    return 1;
}

template <typename Pipe, typename... Options> static int work(const char *name, const Options &...options) {
    Pipe pipe;
    require(pipe.inherit(name, options...), "inherit");
    return serve(pipe);
}

int main(int argc, char **argv) {
    std::string first = argc > 1 ? argv[1] : "";
    if (first == "trace" && argc == 5) {
        std::string pipe = argv[2];
        int count = std::atoi(argv[4]);
        return pipe == "sealane" ? trace<IpcPipe>(argv[3], count) : trace<DatagramPipe>(argv[3], count);
    }
    if (first == "--datagrams" && argc == 3) return work<DatagramPipe>(argv[2]);
    if (argc == 2 && first != "--quick") {
        const char *ring = std::getenv(ring_variable);
        return work<IpcPipe>(argv[1], options_of(ring ? std::strtoul(ring, nullptr, 10) : 0));
    }
    bool is_quick = first == "--quick";
    print_costs(is_quick ? 2 : 31, is_quick ? 50 : 1);
    print_events(is_quick ? 1 : 20);
    return 0;
}
