// The host of both pipes, and what it does with its worker.
#ifndef HOST_HPP
#define HOST_HPP

#include "cost.hpp"
#include "worker.hpp"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <thread>

inline const char program[] = "/proc/self/exe";
// The variable by which the host tells its worker the capacity of the worker's ring.
inline const char ring_variable[] = "MEASURE_RING";
// For a call whose worker is killed.
inline constexpr std::chrono::seconds limit(2);
// Of other calls, on a machine that is busy.
inline constexpr std::chrono::seconds patience(30);

/// What is measured.
enum class Kind { call, call_with_fd, frame, statistics, lent };

struct Row {
    const char *key, *name;
    Kind kind;
    std::size_t size;
    /// How often in each round.
    int count;
};

inline sealane::Options options_of(std::size_t ring) {
    return ring == 0 ? sealane::Options() : sealane::Options().ring_capacity(ring);
}

inline sealane::Result<void> start_pipe(DatagramPipe &pipe, std::size_t) { return pipe.start(program); }

inline sealane::Result<void> start_pipe(IpcPipe &pipe, std::size_t ring) {
    ::setenv(ring_variable, std::to_string(ring).c_str(), 1);
    return pipe.start(program, options_of(ring));
}

/// The host's end of a pipe, and its worker.
template <typename Pipe> class Host {
public:
    static constexpr bool is_sealane = std::is_same_v<Pipe, IpcPipe>;

    Host() {
        pipe_.received = [this](auto &message) {
            require(message.command() == sum && message.data().size() == sizeof(Sum), "answer");
            std::memcpy(&answer_.emplace(), message.data().data(), sizeof(Sum));
        };
        pipe_.died = [](const sealane::Error &error) { require(error, "worker"); };
    }

    /// Starts a worker, and returns the time until its first answer. A ring of 0 bytes: the default.
    double start(std::size_t ring = 0) {
        double begun = now();
        require(start_pipe(pipe_, ring), "start");
        ask();
        return now() - begun;
    }

    void stop() { pipe_.stop(); }
    pid_t worker() const { return worker_; }

    Description ask() {
        auto reply = pipe_.send_sync(describe, {}, patience, {file_.get()});
        require(reply ? sealane::Result<void>() : reply.error(), "description");
        Description description;
        require(reply->data().size() == sizeof description, "description");
        std::memcpy(&description, reply->data().data(), sizeof description);
        require(description.inode == inode_of(file_.get()), "inode");
        worker_ = static_cast<pid_t>(description.pid);
        return description;
    }

    /// False: the message is too large.
    bool run(const Row &row, int count, Cost &cost) {
        data_.resize(row.size);
        fill(data_, 0);
        double begun = now(), host = cpu_of(::getpid()), worker = cpu_of(worker_);
        for (int i = 0; i < count; i++) {
            if (!once(row, i == 0)) return false;
        }
        cost.time.add((now() - begun) / count);
        cost.host.add((cpu_of(::getpid()) - host) / count);
        cost.worker.add((cpu_of(worker_) - worker) / count);
        return true;
    }

    /// How many messages fit while the worker is stopped.
    int fill_up(std::size_t size) {
        start();
        signal_worker(SIGSTOP, WSTOPPED);
        data_.resize(size);
        fill(data_, 0);
        int sent = 0;
        auto result = pipe_.send_async(count, data_);
        for (; result; result = pipe_.send_async(count, data_)) sent++;
        require(result.error() == EAGAIN ? sealane::Result<void>() : result.error(), "full");
        signal_worker(SIGCONT, WCONTINUED);
        // The header of the message that had no room makes the datagrams useless.
        if (is_sealane) require(ask().counted == static_cast<std::uint64_t>(sent), "messages that were sent");
        stop();
        return sent;
    }

    /// How long a call still takes when its worker is killed.
    double kill() {
        start();
        double killed = 0;
        std::thread killer([&] {
            std::this_thread::sleep_for(std::chrono::milliseconds(20));
            killed = now();
            ::kill(worker_, SIGKILL);
        });
        auto reply = pipe_.send_sync(hang, {}, limit);
        double returned = now();
        killer.join();
        // The kill was faster than the call.
        if (reply.error() == ECONNREFUSED) return kill();
        require(reply.error() == (is_sealane ? EPIPE : ETIMEDOUT), "call to a dead worker");
        stop();
        return returned - killed;
    }

private:
    bool once(const Row &row, bool is_first) {
        switch (row.kind) {
        case Kind::call: return call(echo, {}, is_first);
        case Kind::call_with_fd: return call(echo_with_fd, {file_.get()}, is_first);
        case Kind::frame: {
            Word first = 2 * ++stamp_;
            fill(data_, first);
            if (!send(count)) return false;
            fill(data_, first + 1);
            return send(sum) && wait_for(filled_sum(row.size, first) + filled_sum(row.size, first + 1));
        }
        case Kind::lent:
            if constexpr (is_sealane) return lend(row.size) && wait_for(filled_sum(row.size, stamp_));
            // Datagrams have nothing of that kind.
            [[fallthrough]];
        case Kind::statistics:
            fill(data_, ++stamp_);
            return send(sum) && wait_for(filled_sum(row.size, stamp_));
        }
        return false;
    }

    bool call(Command command, sealane::Fds fds, bool is_first) {
        ++stamp_;
        std::memcpy(data_.data(), &stamp_, sizeof stamp_);
        std::memcpy(data_.data() + data_.size() - sizeof stamp_, &stamp_, sizeof stamp_);
        auto reply = pipe_.send_sync(command, data_, patience, fds);
        if (reply.error() == EMSGSIZE) return false;
        require(reply ? sealane::Result<void>() : reply.error(), "call");
        sealane::Bytes echoed = reply->data();
        require(echoed.size() == data_.size(), "size of the echo");
        // All of it once a round: it would cost more than the call does.
        std::size_t checked = is_first ? data_.size() : sizeof stamp_, rest = data_.size() - checked;
        require(std::memcmp(echoed.data(), data_.data(), checked) == 0, "echo");
        require(std::memcmp(echoed.data() + rest, data_.data() + rest, checked) == 0, "echo");
        return true;
    }

    bool send(Command command) {
        auto sent = pipe_.send_async(command, data_);
        if (sent.error() == EMSGSIZE) return false;
        require(sent, "send");
        return true;
    }

    bool lend(std::size_t size) {
        auto loan = pipe_.lend(size);
        require(loan ? sealane::Result<void>() : loan.error(), "loan");
        fill(loan->data(), ++stamp_);
        require(loan->send(sealane::bytes_of<std::uint32_t>(sum), sealane::no_wait), "loan");
        return true;
    }

    bool wait_for(Sum expected) {
        answer_.reset();
        while (!answer_) {
            pollfd loop{pipe_.fd(), POLLIN, 0};
            require(::poll(&loop, 1, 30000) == 1, "poll(2)");
            pipe_.dispatch();
        }
        require(*answer_ == expected, "sum");
        return true;
    }

    void signal_worker(int signal, int awaited) {
        siginfo_t what;
        require(::kill(worker_, signal) == 0 && ::waitid(P_PID, static_cast<id_t>(worker_), &what, awaited) == 0, "kill(2)");
    }

    Pipe pipe_;
    pid_t worker_ = -1;
    sealane::Fd file_{::memfd_create("measure", MFD_CLOEXEC)};
    std::vector<std::byte> data_;
    Word stamp_ = 0;
    std::optional<Sum> answer_;
};

#endif
