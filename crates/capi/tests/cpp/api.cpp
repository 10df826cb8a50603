// Every type and function of sealane.hpp in one process: what it does, what it refuses, and what is left of it after a move.
#include "check.hpp"
#include "second.hpp"

#include <array>
#include <climits>
#include <fcntl.h>
#include <new>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <thread>

using namespace std::chrono_literals;
using namespace sealane;

static_assert(std::is_nothrow_move_constructible_v<Channel> && !std::is_copy_constructible_v<Channel>);
static_assert(std::is_nothrow_move_assignable_v<Message> && !std::is_copy_assignable_v<Message>);
static_assert(!std::is_copy_constructible_v<Fd> && !std::is_copy_constructible_v<Loan>);
// What must not compile: a number of milliseconds or a lone descriptor that is not marked as such, a Result<bool> as a condition.
static_assert(!std::is_convertible_v<int, Timeout> && !std::is_convertible_v<int, Fds> && !std::is_convertible_v<int, Fd>);
static_assert(std::is_constructible_v<bool, Result<int>> && !std::is_constructible_v<bool, Result<bool>>);
// Padding does not cross a process boundary.
struct Padded {
    char one;
    int other;
};
struct Plain {
    std::uint32_t one, other;
};
static_assert(!std::is_constructible_v<Data, std::vector<Padded>> && std::is_constructible_v<Data, std::vector<Plain>>);
static_assert(std::is_constructible_v<Data, std::array<float, 3>> && !std::is_constructible_v<Data, std::vector<bool>>);
static_assert(!std::is_constructible_v<Destination, const std::vector<char> &> && !std::is_constructible_v<Destination, bool (&)[2]>);

// Timeouts are rounded up, and clamped.
static_assert(forever.milliseconds() == -1 && no_wait.milliseconds() == 0 && Timeout(7).milliseconds() == 7);
static_assert(Timeout(1ns).milliseconds() == 1 && Timeout(1001us).milliseconds() == 2 && Timeout(2s).milliseconds() == 2000);
static_assert(Timeout(0s).milliseconds() == 0 && Timeout(-5s).milliseconds() == 0 && Timeout(std::chrono::hours::min()).milliseconds() == 0);
static_assert(Timeout(std::chrono::hours::max()).milliseconds() == INT_MAX && Timeout(25 * 24h).milliseconds() == INT_MAX);
static_assert(Timeout(std::chrono::duration<double>(0.0015)).milliseconds() == 2);
static_assert(Timeout(std::chrono::milliseconds(INT_MAX)).milliseconds() == INT_MAX);

// Allocations of C++, which has malloc for itself here.
static std::size_t allocations = 0;
[[gnu::noinline]] void *operator new(std::size_t size) {
    allocations++;
    if (void *memory = std::malloc(size)) return memory;
    std::abort();
}
[[gnu::noinline]] void operator delete(void *memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void *memory, std::size_t) noexcept { std::free(memory); }

static bool readable(int fd) {
    pollfd wait{fd, POLLIN, 0};
    return poll(&wait, 1, 0) == 1;
}

static bool is_text(Bytes bytes, std::string_view text) {
    return bytes.size() == text.size() && std::memcmp(bytes.data(), text.data(), text.size()) == 0;
}

static std::pair<Channel, Channel> pair(const Options &options = {}) { return GOOD(Channel::pair(options)); }

static std::array<Fd, 2> new_pipe() {
    int ends[2];
    CHECK(::pipe2(ends, O_CLOEXEC) == 0);
    return {Fd(ends[0]), Fd(ends[1])};
}

// What a child writes to stderr before it is ended by SIGABRT.
template <typename F> static std::string abort_of(F &&f) {
    auto [read_end, write_end] = new_pipe();
    std::fflush(nullptr);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        ::dup2(write_end.get(), 2);
        f();
        _exit(0);
    }
    write_end.reset();
    char text[2000];
    std::string all;
    for (ssize_t n; (n = ::read(read_end.get(), text, sizeof text)) > 0;) all.append(text, static_cast<std::size_t>(n));
    int status;
    CHECK(waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    return all;
}

static void results_and_errors() {
    CHECK(std::strcmp(version(), "0.1.0") == 0);
    CHECK(ring_for(4096, 1) >= 3 * (4096 + 1088));
    auto failed = Channel::connect("/nowhere/at/all");
    CHECK(!failed && !failed.has_value() && failed.error() == ENOENT && ENOENT == failed.error().number());
    CHECK(std::strstr(failed.error().message(), "/nowhere/at/all") && std::strstr(last_error(), "/nowhere/at/all"));
    CHECK(failed.error().code() == std::errc::no_such_file_or_directory);
    // Its sentence stays when the next function fails, and goes along to another Result.
    Error copy = failed.error();
    Result<int> other = failed.error();
    FAILS(Channel::connect(std::string(3, 'x') + '\0'), EINVAL, "zero");
    FAILS(Channel::inherited_as(std::string(3, '\0')), EINVAL, "zero");
    FAILS(Handshake::connect_start(std::string(1, '\0')), EINVAL, "zero");
    FAILS(Listener::listen(std::string(1, '\0')), EINVAL, "zero");
    CHECK(std::strstr(copy.message(), "/nowhere/at/all") && std::strstr(other.error().message(), "/nowhere/at/all"));
    Error moved = std::move(failed).error();
    CHECK(moved == ENOENT && std::strstr(moved.message(), "/nowhere/at/all"));

    Result<int> seven = 7;
    const Result<int> &same = seven;
    CHECK(seven && *seven == 7 && *same == 7 && seven.value() == 7 && same.value() == 7 && seven.error() == 0);
    CHECK(std::strcmp(seven.error().message(), "no failure") == 0);
    Result<bool> no = false;
    CHECK(no.has_value() && !*no);
    Result<void> done;
    CHECK(done && done.has_value());
    done.value();
    Result<std::string> text = std::string("text");
    CHECK(text->size() == 4 && std::move(text).value() == "text");
    const Result<std::string> constant = std::string("text");
    CHECK(constant->size() == 4);
    CHECK(Timeout(std::chrono::duration<double>(std::numeric_limits<double>::quiet_NaN())).milliseconds() == 0);
    CHECK(Error(EPERM, "").message() == std::string_view("no sentence"));

    // A value that is not there ends the program with the sentence.
    CHECK(abort_of([&] { (void)*other; }).find("/nowhere/at/all (") == std::string::npos);
    CHECK(abort_of([&] { (void)*other; }).find("/nowhere/at/all") != std::string::npos);
    CHECK(abort_of([&] { (void)Channel::connect("/nowhere")->recv_fd(); }).find("(errno 2)") != std::string::npos);
    const Result<std::string> none = Error(EIO, "nothing");
    CHECK(abort_of([&] { (void)none->size(); }).find("nothing") != std::string::npos);
    CHECK(abort_of([&] { (void)*std::move(none); }).find("nothing") != std::string::npos);
#ifndef SEALANE_EXCEPTIONS
    CHECK(abort_of([&] { (void)other.value(); }).find("/nowhere/at/all") != std::string::npos);
    CHECK(abort_of([&] { (void)none.value(); }).find("nothing") != std::string::npos);
    CHECK(abort_of([&] { (void)Channel::connect("/nowhere").value(); }).find("/nowhere") != std::string::npos);
    CHECK(abort_of([&] { Result<void>(Error(EIO, "void")).value(); }).find("void") != std::string::npos);
#else
    auto thrown = [](auto &&f) {
        try {
            f();
        } catch (const std::system_error &error) {
            return error.code().value() == ENOENT && std::strstr(error.what(), "/nowhere") != nullptr;
        }
        return false;
    };
    const Result<int> &unchanged = other;
    CHECK(thrown([&] { (void)other.value(); }) && thrown([&] { (void)unchanged.value(); }));
    CHECK(thrown([&] { (void)Channel::connect("/nowhere").value(); }));
    CHECK(thrown([&] { Result<void>(copy).value(); }));
    CHECK(GOOD(Channel::pair()).first && Channel::pair().value().second);
#endif
}

static void views() {
    std::array<std::byte, 3> bytes{std::byte{1}, std::byte{2}, std::byte{3}};
    MutableBytes mutable_bytes(bytes);
    Bytes view = mutable_bytes;
    CHECK(view.size() == 3 && view.size_bytes() == 3 && !view.empty() && view[1] == std::byte{2} && view.data() == bytes.data());
    CHECK(view.front() == std::byte{1} && view.back() == std::byte{3} && Bytes().empty() && Bytes().data() == nullptr);
    CHECK(view.first(2).back() == std::byte{2} && view.last(1)[0] == std::byte{3} && view.subspan(1).size() == 2);
    CHECK(view.subspan(1, 1).data() == bytes.data() + 1 && view.end() - view.begin() == 3);
    for (std::byte &byte : mutable_bytes) byte = std::byte{9};
    CHECK(view[0] == std::byte{9});
    std::vector<std::byte> vector(5);
    CHECK(Bytes(vector).size() == 5);

    auto size = [](Data data) { return data.size(); };
    char text[20] = "text";
    std::string string = "string";
    const std::vector<std::uint32_t> numbers(3);
    std::uint8_t array[7] = {};
    Plain plain{1, 2};
    const char *null = nullptr;
    CHECK(size({}) == 0 && size("") == 0 && size("four") == 4 && size(text) == 4 && size(null) == 0 && size(string) == 6);
    CHECK(size(std::string_view("view")) == 4 && size(numbers) == 12 && size(array) == 7 && size(view) == 3);
    CHECK(size(mutable_bytes) == 3 && size(bytes_of(plain)) == 8 && size(bytes_of(1.5f)) == 4 && size(std::array<float, 2>()) == 8);
    CHECK(bytes_of(plain)[0] == std::byte{1} || bytes_of(plain)[3] == std::byte{1});
    writable_bytes_of(plain)[0] = std::byte{0};
    CHECK(Data(string).data() == string.data());

    auto room = [](Destination destination) { return destination.size(); };
    std::vector<std::uint64_t> wide(2);
    CHECK(room(vector) == 5 && room(mutable_bytes) == 3 && room(wide) == 16 && room(array) == 7 && room(writable_bytes_of(plain)) == 8);
    CHECK(Destination(wide).data() == wide.data());

    auto count = [](Fds fds) { return fds.size(); };
    std::vector<Fd> owned(2);
    const int plain_fds[3] = {};
    CHECK(count({}) == 0 && count({1}) == 1 && count({1, 2}) == 2 && count(owned) == 2 && count(plain_fds) == 3);
    CHECK(count(std::vector<int>(4)) == 4 && Fds(owned).data()[1] == -1);
}

static void fds_close() {
    auto [read_end, write_end] = new_pipe();
    int number = read_end.get();
    Fd moved = std::move(read_end);
    CHECK(!read_end && read_end.get() == -1 && moved && moved.get() == number);
    moved = std::move(*&moved);
    CHECK(moved.get() == number);
    write_end = std::move(moved);
    CHECK(!moved && write_end.get() == number && fcntl(number, F_GETFD) >= 0);
    write_end.reset();
    CHECK(!write_end && fcntl(number, F_GETFD) == -1);
    Fd released = std::move(new_pipe()[0]);
    int kept = released.release();
    released.reset();
    CHECK(fcntl(kept, F_GETFD) >= 0);
    { Fd owner(kept); }
    CHECK(fcntl(kept, F_GETFD) == -1);
}

static void options_are_what_they_say() {
    auto [a, b] = pair(Options().ring_capacity(1 << 20).max_fds(0).max_control(100));
    CHECK(a.send_limits().max_payload == (1 << 20) / 2 - 1088 && a.send_limits().max_control == 100);
    CHECK(a.recv_limits().max_fds == 0 && a.recv_limits().max_requests == 1024);
    FAILS(a.send("x", no_wait, {0}), EMSGSIZE, "max_fds");
    Options options;
    const sealane_options &raw = *options.get();
    CHECK(raw.size == sizeof raw && raw.max_fds == 0);
    options.max_peer_ring_capacity(8 << 20).max_requests(1).handshake_timeout(1s).wait(Wait::adaptive).max_spin(0us);
    options.prefault(false).huge_pages(false).peer_pidfd(true);
    CHECK(raw.max_peer_ring_capacity == 8 << 20 && raw.max_requests == 1 && raw.handshake_timeout_ms == 1000);
    CHECK(raw.wait == SEALANE_WAIT_ADAPTIVE && raw.max_spin_us == SEALANE_NONE && raw.prefault == SEALANE_NONE);
    CHECK(raw.huge_pages == SEALANE_NONE && raw.peer_pidfd == 1);
    auto [c, d] = pair(options);
    auto pidfd = c.pidfd();
    CHECK(pidfd ? *pidfd >= 0 : pidfd.error() == ENOENT);
    FAILS(a.pidfd(), ENOENT, "pidfd");
    // No number means another one.
    options.ring_capacity(1).max_control(UINT32_MAX).max_requests(0).handshake_timeout(std::chrono::hours(10000));
    CHECK(raw.ring_capacity == 2 && raw.max_control == UINT32_MAX - 1 && raw.max_requests == SEALANE_NONE);
    CHECK(raw.handshake_timeout_ms == UINT32_MAX - 1);
    options.ring_capacity(0).handshake_timeout(-1s).prefault(true);
    CHECK(raw.ring_capacity == SEALANE_NO_RING && raw.handshake_timeout_ms == SEALANE_NONE && raw.prefault == 1);
    FAILS(Channel::pair(Options().max_control(UINT32_MAX)), EINVAL, "max_control");
    FAILS(Channel::pair(Options().handshake_timeout(0s)), EINVAL, "handshake_timeout");
    CHECK(pair(Options().ring_capacity(0).max_peer_ring_capacity(0)).first.send_limits().max_payload == 0);
    sealane_options given{};
    given.size = sizeof given;
    given.wait = SEALANE_WAIT_BLOCK;
    CHECK(pair(Options(given)).first);
    FAILS(Channel::pair(Options(given).max_spin(1us)), EINVAL, "max_spin_us");
    FAILS(Channel::pair(Options(sealane_options{})), EINVAL, "size");
}

static void messages() {
    auto [a, b] = pair();
    FAILS(b.recv(no_wait), EAGAIN, "yet");
    CHECK(std::strstr(last_error(), "no message"));
    FAILS(b.recv(1ns), ETIMEDOUT, "deadline");
    CHECK(GOOD(b.arm()) && !readable(b.recv_fd()));

    auto [read_end, write_end] = new_pipe();
    GOOD(a.send("hello", forever, {read_end.get(), write_end.get()}));
    CHECK(readable(b.recv_fd()) && !GOOD(b.arm()));
    Message message = GOOD(b.recv(forever));
    CHECK(message && is_text(message.control(), "hello") && message.number() == 0 && message.fd_count() == 2);
    CHECK(!message.has_payload() && message.payload_size() == 0 && !message.expects_reply() && !message.in_reply_to());
    std::byte byte[1];
    FAILS(message.copy_to(byte), ENODATA, "payload");
    FAILS(message.blocks([](Bytes) {}), ENODATA, "payload");
    Fd first = message.take_fd();
    CHECK(first && message.fd_count() == 1 && fcntl(first.get(), F_GETFD) == FD_CLOEXEC);
    std::vector<Fd> rest = message.take_fds();
    CHECK(rest.size() == 1 && message.fd_count() == 0 && message.take_fds().empty() && !message.take_fd());
    CHECK(write(rest[0].get(), "x", 1) == 1 && readable(first.get()));

    // Owned descriptors are sent as they are, and stay the sender's.
    std::vector<Fd> owned;
    owned.push_back(std::move(first));
    owned.push_back(std::move(rest[0]));
    GOOD(a.send({}, 1s, owned));
    CHECK(fcntl(owned[1].get(), F_GETFD) >= 0);
    message = GOOD(b.recv(1s));
    CHECK(message.control().empty() && message.fd_count() == 2);
    // The message closes what was not taken, so that the pipe's end is seen.
    owned.clear();
    read_end.reset();
    int other = message.take_fd().release();
    message.reset();
    CHECK(!message);
    message.reset();
    CHECK(write(write_end.get(), "x", 1) == 1);
    Fd(other).reset();

    FAILS(a.send("x", no_wait, {-1}), EBADF, "descriptor");
    FAILS(a.send("x", no_wait, {other}), EBADF, "failed");

    // A full socket: cheap to be told, and the descriptor says when there is room.
    int count = 0;
    while (a.send("x", no_wait)) count++;
    std::size_t before = allocations;
    for (int i = 0; i < 10; i++) {
        auto full = a.send("x", no_wait);
        CHECK(!full && full.error() == EAGAIN && *full.error().message());
    }
    CHECK(allocations == before);
    CHECK(!readable(a.send_fd()));
    for (int i = 0; i < count; i++) GOOD(b.recv(no_wait));
    before = allocations;
    for (int i = 0; i < 10; i++) CHECK(b.recv(no_wait).error() == EAGAIN && b.recv(1us).error() == ETIMEDOUT);
    CHECK(allocations == before);
    CHECK(readable(a.send_fd()));

    Peer peer = a.peer();
    CHECK(peer.pid == static_cast<std::uint32_t>(getpid()) && peer.uid == getuid() && peer.version == 1);

    // What was sent before the end is received, then comes the end. A message outlives its channel.
    GOOD(a.send("last", no_wait));
    a.reset();
    CHECK(!a);
    message = GOOD(b.recv(forever));
    FAILS(b.recv(forever), EPIPE, "gone");
    b = Channel();
    CHECK(is_text(message.control(), "last"));

    auto [c, d] = pair();
    std::thread waits([&channel = d] { CHECK(channel.recv(forever).error() == EPIPE); });
    GOOD(d.close());
    waits.join();
    FAILS(c.send("x", forever), EPIPE, "gone");
}

static void payloads() {
    auto [a, b] = pair();
    FAILS(a.loan(1 << 30, forever), EMSGSIZE, "ring_capacity");
    Loan loan = GOOD(a.loan(100000, forever));
    CHECK(loan && loan.size() == 100000 && loan.data().size() == 100000);
    for (std::byte &byte : loan.data()) byte = std::byte{3};
    FAILS(a.send("x", no_wait), EBUSY, "loan");
    FAILS(a.request("x", no_wait), EBUSY, "loan");
    FAILS(a.reply(0, "x", no_wait), EBUSY, "loan");
    FAILS(a.call("x", 1s), EBUSY, "loan");
    FAILS(a.loan(1, no_wait), EBUSY, "loan");
    FAILS(loan.truncate(100001), EINVAL, "more");
    GOOD(loan.truncate(50000));
    GOOD(loan.send("stats", no_wait, {0}));
    CHECK(!loan && loan.size() == 0 && loan.data().empty());
    FAILS(loan.send({}, no_wait), EFAULT, "handle");

    Message message = GOOD(b.recv(forever));
    CHECK(is_text(message.control(), "stats") && message.has_payload() && message.payload_size() == 50000);
    CHECK(message.fd_count() == 1);
    std::vector<std::uint32_t> copy(12500);
    GOOD(message.copy_to(copy));
    CHECK(copy.front() == 0x03030303 && copy.back() == 0x03030303);
    std::uint8_t bytes[3] = {};
    GOOD(message.copy_to(bytes, 49997));
    CHECK(bytes[0] == 3 && bytes[2] == 3);
    Plain plain{};
    GOOD(message.copy_to(writable_bytes_of(plain), 8));
    CHECK(plain.other == 0x03030303);
    FAILS(message.copy_to(bytes, 49998), EINVAL, "50000");
    GOOD(message.copy_to(MutableBytes(), 50000));

    std::size_t sum = 0, count = 0;
    GOOD(message.blocks([&](Bytes block) {
        count++;
        for (std::byte byte : block) sum += std::to_integer<std::size_t>(byte);
    }));
    CHECK(sum == 150000 && count == 7);
    auto second = [&](Bytes) { return --count != 5; };
    GOOD(message.blocks(second));
    CHECK(count == 5);
#ifdef __cpp_exceptions
    // What a callback throws reaches the caller, not the library. The message is as before.
    count = 0;
    try {
        (void)message.blocks([&](Bytes) -> bool {
            if (++count == 2) throw std::string("thrown");
            return true;
        });
        CHECK(false);
    } catch (const std::string &text) {
        CHECK(text == "thrown" && count == 2);
    }
    GOOD(message.blocks([&](Bytes block) { count += block.size(); }));
    CHECK(count == 50002);
#endif
    GOOD(message.release());
    CHECK(!message.has_payload() && is_text(message.control(), "stats"));
    message.reset();

    // A ring without room.
    std::size_t quarter = a.send_limits().max_payload / 4;
    int sent = 0;
    while (auto next = a.loan(quarter, no_wait)) {
        GOOD(next->send({}, forever));
        sent++;
    }
    CHECK(sent > 3);
    std::size_t before = allocations;
    CHECK(a.loan(quarter, no_wait).error() == EAGAIN && a.loan(quarter, 1ms).error() == ETIMEDOUT);
    CHECK(a.loan(quarter, no_wait).error() == EAGAIN && allocations == before && !readable(a.send_fd()));
    for (int i = 0; i < sent; i++) GOOD(b.recv(no_wait));
    FAILS(b.recv(no_wait), EAGAIN, "yet");
    CHECK(readable(a.send_fd()));

    // A loan that is destroyed, or assigned to, sends nothing.
    { Loan discarded = GOOD(a.loan(64, no_wait)); }
    loan = GOOD(a.loan(64, no_wait));
    loan = Loan();
    FAILS(b.recv(no_wait), EAGAIN, "yet");

    // A full socket leaves a loan open.
    int count_of_fillers = 0;
    while (a.send("x", no_wait)) count_of_fillers++;
    loan = GOOD(a.loan(64, no_wait));
    FAILS(loan.send("fd", no_wait, {0}), EAGAIN, "room");
    CHECK(loan && loan.size() == 64);
    FAILS(loan.request("fd", no_wait, {0}), EAGAIN, "room");
    FAILS(loan.reply(5, "fd", no_wait, {0}), ENOENT, "request");
    CHECK(loan && loan.size() == 64);
    Loan moved = std::move(loan);
    CHECK(!loan && moved && moved.size() == 64);
    FAILS(moved.send("fd", 1ms, {0}), ETIMEDOUT, "deadline");
    CHECK(moved && moved.size() == 64);
    for (int i = 0; i < count_of_fillers; i++) GOOD(b.recv(no_wait));
    GOOD(moved.truncate(5));
    GOOD(moved.send("fd", no_wait, {0}));
    message = GOOD(b.recv(1s));
    CHECK(message.payload_size() == 5 && message.fd_count() == 1);

    // A loan ends with its channel.
    loan = GOOD(a.loan(5, no_wait));
    a.reset();
    CHECK(loan && loan.data().empty());
    FAILS(loan.send({}, forever), EPIPE, "channel");
}

static void requests() {
    auto [a, b] = pair(Options().max_requests(2));
    std::uint64_t asked = GOOD(a.request("gain?", no_wait));
    Message message = GOOD(b.recv(forever));
    CHECK(!message.in_reply_to());
    std::uint64_t number = message.expects_reply().value();
    GOOD(b.reply(number, "2.0", no_wait));
    FAILS(b.reply(number, "2.0", no_wait), ENOENT, "request");
    message = GOOD(a.recv(forever));
    CHECK(message.in_reply_to() == asked && !message.expects_reply() && is_text(message.control(), "2.0"));

    // Payloads both ways.
    Loan loan = GOOD(a.loan(8, forever));
    std::memcpy(loan.data().data(), "question", 8);
    asked = GOOD(loan.request({}, forever));
    CHECK(!loan);
    message = GOOD(b.recv(forever));
    loan = GOOD(b.loan(6, forever));
    std::memcpy(loan.data().data(), "answer", 6);
    GOOD(loan.reply(message.expects_reply().value(), "with it", forever));
    message = GOOD(a.recv(forever));
    char answer[6];
    GOOD(message.copy_to(answer));
    CHECK(message.in_reply_to() == asked && std::memcmp(answer, "answer", 6) == 0);

    // The reply to a request that was forgotten is dropped.
    asked = GOOD(a.request("one", no_wait));
    GOOD(a.request("two", no_wait));
    FAILS(a.request("three", no_wait), EDQUOT, "request");
    FAILS(a.cancel(12345), ENOENT, "request");
    GOOD(a.cancel(asked));
    for (int i = 0; i < 2; i++) {
        message = GOOD(b.recv(no_wait));
        GOOD(b.reply(message.expects_reply().value(), message.control(), no_wait));
    }
    CHECK(is_text(GOOD(a.recv(no_wait)).control(), "two"));
    FAILS(a.recv(no_wait), EAGAIN, "yet");

    auto [client, server] = pair();
    std::uint64_t next = GOOD(client.next_number());
    CHECK(GOOD(client.request("later", no_wait)) == next);
    FAILS(client.wait_reply(next + 1, 1s), ENOENT, "request");
    GOOD(server.reply(GOOD(server.recv(1s)).expects_reply().value(), "now", no_wait));
    CHECK(is_text(GOOD(client.wait_reply(next, 1s)).control(), "now"));
    FAILS(client.wait_reply(next, 1s), ENOENT, "request");
    next = GOOD(client.request("never", no_wait));
    FAILS(client.wait_reply(next, 1ms), ETIMEDOUT, "deadline");
    GOOD(server.recv(no_wait));
    FAILS(client.call("x", no_wait), ETIMEDOUT, "deadline");
    FAILS(client.call("x", 1ms), ETIMEDOUT, "deadline");
    std::thread answers([&channel = server] {
        for (auto request = channel.recv(forever); request; request = channel.recv(forever)) {
            if (is_text(request->control(), "exposure?")) {
                GOOD(channel.send("in between", forever));
                GOOD(channel.reply(request->expects_reply().value(), "20 ms", forever));
            }
        }
    });
    Message reply = GOOD(client.call("exposure?", 10s, {0}));
    CHECK(is_text(reply.control(), "20 ms") && is_text(GOOD(client.recv(no_wait)).control(), "in between"));
    client.reset();
    answers.join();
}

static void handshakes(const std::string &directory) {
    std::string path = directory + "/listener";
    Listener listener = GOOD(Listener::listen(path));
    FAILS(Listener::listen(path), EADDRINUSE, path.c_str());
    FAILS(listener.accept(no_wait), EAGAIN, "yet");
    FAILS(listener.accept(1ms), ETIMEDOUT, "deadline");
    FAILS(listener.accept_start(), EAGAIN, "yet");
    CHECK(!readable(listener.fd()));

    Handshake client = GOOD(Handshake::connect_start(path));
    auto remaining = GOOD(client.remaining());
    CHECK(readable(listener.fd()) && remaining > 0ms && remaining <= 5s && GOOD(client.fd()) >= 0);
    Handshake server = GOOD(listener.accept_start());
    FAILS(server.peer(), EAGAIN, "yet");
    CHECK(!GOOD(client.advance()) && !GOOD(server.advance()));
    CHECK(GOOD(server.peer()).uid == getuid() && server.needs_advance());
    for (bool done[2] = {}; !done[0] || !done[1];) {
        if (!done[0]) done[0] = GOOD(server.advance());
        if (!done[1]) done[1] = GOOD(client.advance());
    }
    Channel a = GOOD(server.finish()), b = GOOD(client.finish());
    CHECK(!server && !client);
    FAILS(client.finish(), EFAULT, "null");
    GOOD(b.send("hello", forever));
    CHECK(is_text(GOOD(a.recv(forever)).control(), "hello"));

    client = GOOD(Handshake::connect_start(path));
    server = GOOD(listener.accept_start());
    GOOD(server.refuse());
    CHECK(!server);
    FAILS(client.finish(), ECONNREFUSED, "refused");
    CHECK(!client);
    client = GOOD(Handshake::connect_start(path));
    server = GOOD(listener.accept_start());
    client.reset();
    FAILS(server.finish(), ECONNRESET, "closed");

    // Both ends block.
    std::thread connects([&] { b = GOOD(Channel::connect(path, Options().ring_capacity(1 << 16))); });
    a = GOOD(listener.accept(10s));
    connects.join();
    CHECK(a.recv_limits().max_payload == (1 << 16) / 2 - 1088 && a.send_limits().max_payload == (4 << 20) / 2 - 1088);
    listener = Listener();
    CHECK(access(path.c_str(), F_OK) == -1);

    // A socket that listens already, and one that is connected.
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::snprintf(address.sun_path, sizeof address.sun_path, "%s/activated", directory.c_str());
    Fd socket(::socket(AF_UNIX, SOCK_SEQPACKET, 0));
    FAILS(Listener::listen_on(socket.get()), EINVAL, "listening");
    CHECK(bind(socket.get(), reinterpret_cast<sockaddr *>(&address), sizeof address) == 0 && ::listen(socket.get(), 1) == 0);
    listener = GOOD(Listener::listen_on(socket.get()));
    CHECK(listener.fd() >= 0 && listener.fd() != socket.get() && unlink(address.sun_path) == 0);
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, ends) == 0);
    {
        Fd one(ends[0]), other(ends[1]);
        client = GOOD(Handshake::start(one.get()));
        server = GOOD(Handshake::start(other.get()));
    }
    FAILS(client.child_fd(), EINVAL, "sealane_prepare");
    while (!GOOD(client.advance())) GOOD(server.advance());
    CHECK(GOOD(client.finish()) && GOOD(server.finish()));
    FAILS(Handshake::start(new_pipe()[0].get()), EPROTOTYPE, "SEQPACKET");
}

static void children() {
    Handshake handshake = GOOD(Handshake::prepare(Options().handshake_timeout(30s)));
    FAILS(handshake.advance(), EBUSY, "child_started");
    CHECK(!handshake.needs_advance());
    FAILS(handshake.fd(), EBUSY, "child_started");
    FAILS(handshake.remaining(), EBUSY, "child_started");
    FAILS(handshake.finish(), EBUSY, "child_started");
    CHECK(handshake);
    std::string name = GOOD(handshake.child_name());
    CHECK(std::atoi(name.c_str()) == GOOD(handshake.child_fd()) && name.find(':') != std::string::npos);
    std::fflush(nullptr);
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        FAILS(Channel::inherited(), ENOENT, "SEALANE_FD");
        FAILS(Channel::inherited_as("99999"), ENOENT, "descriptor");
        Channel channel = GOOD(Channel::inherited_as(name));
        handshake.reset();
        CHECK(is_text(GOOD(channel.call("ready?", forever)).control(), "go"));
        channel.reset();
        std::exit(0);
    }
    GOOD(handshake.child_started());
    FAILS(handshake.child_started(), EINVAL, "sealane_prepare");
    FAILS(handshake.child_name(), EINVAL, "sealane_prepare");
    Channel channel = GOOD(handshake.finish());
    Message message = GOOD(channel.recv(forever));
    GOOD(channel.reply(message.expects_reply().value(), "go", forever));
    FAILS(channel.recv(forever), EPIPE, "gone");
    int status;
    CHECK(waitpid(child, &status, 0) == child && status == 0);
}

// Two pipes whose handshake has not begun.
static std::pair<Pipe, Pipe> fresh_pipes() {
    int ends[2];
    CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == 0);
    Fd one(ends[0]), other(ends[1]);
    Handshake first = GOOD(Handshake::start(one.get())), second = GOOD(Handshake::start(other.get()));
    std::pair made(GOOD(Pipe::from(std::move(first))), GOOD(Pipe::from(std::move(second))));
    CHECK(!first && !second);
    return made;
}

static void pipes() {
    auto [a, b] = fresh_pipes();
    CHECK(a && !a.channel() && a.fd() >= 0);
    FAILS(a.request("early", {}), EAGAIN, "yet");
    FAILS(a.recv(no_wait), EAGAIN, "yet");
    auto [read_end, write_end] = new_pipe();
    const std::vector<std::uint32_t> large(50000, 7);
    GOOD(a.send("early", {write_end.get()}));
    GOOD(a.send(large));
    write_end.reset();
    Pipe::Ready last{};
    while (!b.channel() || !last.can_recv) {
        pollfd wait[2] = {{a.fd(), POLLIN, 0}, {b.fd(), POLLIN, 0}};
        CHECK(poll(wait, 2, -1) > 0);
        GOOD(a.dispatch());
        last = GOOD(b.dispatch());
    }
    CHECK(last.can_send && a.channel() && b.channel().recv_limits().max_fds == 64);
    Message message = GOOD(b.recv(no_wait));
    CHECK(is_text(message.bytes(), "early") && message.fd_count() == 1 && readable(b.fd()));
    CHECK(write(message.take_fd().get(), "x", 1) == 1 && readable(read_end.get()));
    message = GOOD(b.recv(no_wait));
    Bytes bytes = message.bytes();
    GOOD(message.release());
    CHECK(message.bytes().data() == bytes.data() && bytes.size() == 200000 && bytes[0] == std::byte{7});
    FAILS(b.recv(no_wait), EAGAIN, "yet");

    // A full pipe: cheap to be told, and dispatch says when to try again.
    std::size_t sent = 0;
    while (a.send("filler")) sent++;
    std::size_t before = allocations;
    CHECK(a.send("filler").error() == EAGAIN && !GOOD(a.dispatch()).can_send && allocations == before);
    for (std::size_t i = 0; i < sent; i++) GOOD(b.recv(no_wait));
    FAILS(b.recv(no_wait), EAGAIN, "yet");
    CHECK(readable(a.fd()) && GOOD(a.dispatch()).can_send);

    std::uint64_t asked = GOOD(a.request(large, {0}));
    message = GOOD(b.recv(1s));
    CHECK(message.fd_count() == 1 && message.bytes().size() == 200000);
    GOOD(b.reply(message.expects_reply().value(), message.bytes()));
    FAILS(b.reply(message.expects_reply().value(), "again"), ENOENT, "request");
    message = GOOD(a.recv(1s));
    CHECK(message.in_reply_to() == asked && message.bytes().size() == 200000);
    asked = GOOD(a.request("later"));
    GOOD(b.reply(GOOD(b.recv(1s)).expects_reply().value(), "now"));
    CHECK(GOOD(a.wait_reply(asked, 1s)).bytes().size() == 3);
    FAILS(a.wait_reply(asked, no_wait), ENOENT, "request");
    FAILS(a.call("x", no_wait), ETIMEDOUT, "deadline");
    FAILS(a.call("x", 1ms, {0}), ETIMEDOUT, "deadline");
    CHECK(GOOD(b.recv(no_wait)).fd_count() == 1);
    FAILS(b.recv(1ms), ETIMEDOUT, "deadline");

    // A loan of the pipe's channel.
    Loan loan = GOOD(b.channel().loan(4, no_wait));
    std::memcpy(loan.data().data(), "loan", 4);
    GOOD(loan.send({}, no_wait));
    CHECK(is_text(GOOD(a.recv(forever)).bytes(), "loan"));

    // A move takes the pipe along; its end is the other's to receive, in the middle of a call too.
    Pipe moved = std::move(b);
    CHECK(!b && b.fd() < 0 && !b.channel() && moved);
    std::thread ends([&] {
        CHECK(is_text(GOOD(moved.recv(forever)).bytes(), "end?"));
        moved.reset();
    });
    FAILS(a.call("end?", forever), EPIPE, "gone");
    ends.join();
    CHECK(GOOD(a.dispatch()).can_recv);
    FAILS(a.recv(no_wait), EPIPE, "gone");
    FAILS(a.send("x"), EPIPE, "gone");
    FAILS(b.dispatch(), EFAULT, "pipe");
    FAILS(b.send("x"), EFAULT, "pipe");
    FAILS(b.request("x"), EFAULT, "pipe");
    FAILS(b.reply(0, "x"), EFAULT, "pipe");
    FAILS(b.call("x", forever), EFAULT, "pipe");
    FAILS(b.recv(forever), EFAULT, "pipe");
    CHECK(Message().bytes().empty());

    // What cannot become a pipe stays as it is.
    auto [c, d] = pair();
    loan = GOOD(c.loan(1, no_wait));
    FAILS(Pipe::from(std::move(c)), EBUSY, "loan");
    CHECK(c);
    loan.reset();
    Pipe e = GOOD(Pipe::from(std::move(c)));
    CHECK(!c && e.channel());
    GOOD(d.send("to a pipe", no_wait));
    CHECK(is_text(GOOD(e.recv(forever)).bytes(), "to a pipe"));
    Handshake handshake = GOOD(Handshake::prepare());
    FAILS(Pipe::from(std::move(handshake)), EBUSY, "child_started");
    CHECK(handshake);
    GOOD(handshake.child_started());
    // A handshake that fails says so again and again.
    e = GOOD(Pipe::from(std::move(handshake)));
    for (int i = 0; i < 2; i++) FAILS(e.dispatch(), ECONNRESET, "closed");
    FAILS(e.send("x"), ECONNRESET, "closed");
    FAILS(e.recv(forever), ECONNRESET, "closed");
}

static void sealed_buffers() {
    Sealed sealed = GOOD(Sealed::make(5000));
    CHECK(sealed.size() == 5000 && sealed.data().size() == 5000 && sealed.data()[4999] == std::byte{0});
    sealed.data_mut()[4999] = std::byte{9};
    FAILS(sealed.fd(), EINVAL, "seal");
    GOOD(sealed.seal());
    FAILS(sealed.seal(), EINVAL, "not sealed yet");
    CHECK(sealed.data_mut().empty());
    int fd = GOOD(sealed.fd());
    FAILS(Sealed::open(fd, 4999), EBADMSG, "4999");
    Sealed opened = GOOD(Sealed::open(fd, 5000));
    sealed.reset();
    CHECK(opened.data()[4999] == std::byte{9} && opened.data().size() == 5000);
    FAILS(Sealed::open(new_pipe()[0].get(), 1), EBADMSG, "regular file");
}

// Objects that are empty fail with EFAULT, or give nothing. Moves leave such objects.
static void empty_objects() {
    auto [channel, peer] = pair();
    sealane_channel *raw = channel.get();
    Channel moved = std::move(channel);
    CHECK(moved.get() == raw && !channel && channel.get() == nullptr);
    moved = std::move(*&moved);
    CHECK(moved.get() == raw);
    Channel taken(moved.detach());
    CHECK(!moved && taken.get() == raw);
    static_assert(!std::is_copy_assignable_v<Channel> && !std::is_assignable_v<ChannelFunctions &, ChannelRef>);
    const char without_zero[4] = {'f', 'o', 'u', 'r'};
    CHECK(Data(without_zero).size() == 4 && Data("text").size() == 4 && Data(static_cast<const char *>("text")).size() == 4);
    ChannelRef ref = taken;
    GOOD(ref.send("by reference", no_wait));
    CHECK(ref && ref.get() == raw && is_text(GOOD(peer.recv(no_wait)).control(), "by reference"));
    CHECK(!ChannelRef());
    // What is assigned to is freed first.
    taken = std::move(peer);
    FAILS(taken.recv(forever), EPIPE, "gone");

    FAILS(channel.send("x", forever), EFAULT, "handle");
    FAILS(channel.request("x", forever), EFAULT, "handle");
    FAILS(channel.reply(0, "x", forever), EFAULT, "handle");
    FAILS(channel.call("x", forever), EFAULT, "handle");
    FAILS(channel.recv(forever), EFAULT, "handle");
    FAILS(channel.loan(1, forever), EFAULT, "handle");
    FAILS(channel.cancel(0), EFAULT, "handle");
    FAILS(channel.next_number(), EFAULT, "handle");
    FAILS(channel.wait_reply(0, forever), EFAULT, "handle");
    FAILS(channel.close(), EFAULT, "handle");
    FAILS(channel.arm(), EFAULT, "handle");
    FAILS(channel.pidfd(), EFAULT, "handle");
    CHECK(channel.recv_fd() < 0 && channel.send_fd() < 0 && channel.send_limits().max_fds == 0);
    CHECK(channel.recv_limits().max_control == 0 && channel.peer().version == 0);
    channel.reset();

    Message message;
    CHECK(!message && message.control().empty() && message.payload_size() == 0 && message.take_fds().empty());
    CHECK(!message.take_fd() && !message.expects_reply() && !message.in_reply_to() && message.number() == 0);
    CHECK(!message.has_payload() && message.fd_count() == 0);
    FAILS(message.release(), EFAULT, "");
    FAILS(message.copy_to(MutableBytes()), EFAULT, "handle");
    FAILS(message.blocks([](Bytes) { CHECK(false); }), EFAULT, "handle");
    Loan loan;
    CHECK(!loan && loan.data().empty());
    FAILS(loan.truncate(0), EFAULT, "null");
    FAILS(loan.request({}, forever), EFAULT, "null");
    FAILS(loan.reply(0, {}, forever), EFAULT, "null");
    Handshake handshake;
    FAILS(handshake.advance(), EFAULT, "null");
    FAILS(handshake.peer(), EFAULT, "null");
    FAILS(handshake.refuse(), EFAULT, "null");
    FAILS(handshake.child_started(), EFAULT, "null");
    Listener listener;
    CHECK(listener.fd() < 0);
    FAILS(listener.accept(forever), EFAULT, "handle");
    FAILS(listener.accept_start(), EFAULT, "handle");
    Sealed sealed;
    CHECK(sealed.data().empty() && sealed.data_mut().empty() && sealed.size() == 0);
    FAILS(sealed.seal(), EFAULT, "null");
    FAILS(sealed.fd(), EFAULT, "handle");
}

int main(int argc, char **argv) {
    if (argc != 2) {
        std::fprintf(stderr, "a directory expected\n");
        return 2;
    }
    results_and_errors();
    views();
    fds_close();
    options_are_what_they_say();
    messages();
    payloads();
    requests();
    handshakes(argv[1]);
    children();
    pipes();
    sealed_buffers();
    empty_objects();
    CHECK(size_of_a_message_between_two_channels() == 6);
    std::puts("every function was called");
}
