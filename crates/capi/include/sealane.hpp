/*
 * sealane for C++17: a thin header over sealane.h, which has each function's failures in full.
 *
 * Results. A function that can fail returns a Result<T>: a value, or an Error with a positive errno and a sentence. Reading a
 * value that is not there ends the program with that sentence. With SEALANE_EXCEPTIONS defined, value() throws a
 * std::system_error instead. Nothing else here throws, except for std::bad_alloc, so that the header also serves
 * -fno-exceptions -fno-rtti.
 *
 * Ownership. Channel, Handshake, Listener, Loan, Message, Pipe, Sealed and Fd own what they are named after, are move-only, and free
 * it in their destructor. An object that was moved from, or made by its default constructor, is empty: its functions fail with
 * EFAULT, and those without a Result return 0, a negative descriptor or an empty view. Descriptors that are given are borrowed
 * for the call.
 *
 * Timeouts. Functions with a Timeout wait for that long at most: sealane::forever, sealane::no_wait, or any duration of
 * <chrono>. Functions without one do not block, unless they say so.
 *
 * Memory. No function gives a pointer to a received payload, since its sender can still write there: copy_to and blocks copy.
 *
 * Threads. One thread may send on a channel while another receives; a second one in the same direction gets EBUSY. Another
 * object is used by one thread at a time, unless its type says more. Moving and destroying are never concurrent with use.
 */
#ifndef SEALANE_HPP
#define SEALANE_HPP

#include "sealane.h"

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <optional>
#include <string>
#include <string_view>
#include <system_error>
#include <type_traits>
#include <utility>
#include <vector>

#include <unistd.h>

#if __has_include(<version>)
#include <version>
#endif
#ifdef __cpp_lib_span
#include <span>
#endif

/* Translation units with other settings see other types, so that they can be linked into one program. */
#if defined(SEALANE_EXCEPTIONS) && !defined(__cpp_exceptions)
#error "SEALANE_EXCEPTIONS needs exceptions"
#elif defined(SEALANE_EXCEPTIONS) && defined(__cpp_lib_span)
#define SEALANE_SETTINGS_ std_span_throwing
#elif defined(SEALANE_EXCEPTIONS)
#define SEALANE_SETTINGS_ own_span_throwing
#elif defined(__cpp_exceptions) && defined(__cpp_lib_span)
#define SEALANE_SETTINGS_ std_span
#elif defined(__cpp_exceptions)
#define SEALANE_SETTINGS_ own_span
#elif defined(__cpp_lib_span)
#define SEALANE_SETTINGS_ std_span_no_exceptions
#else
#define SEALANE_SETTINGS_ own_span_no_exceptions
#endif

namespace sealane {
inline namespace SEALANE_SETTINGS_ {

#ifdef __cpp_lib_span
template <typename T> using Span = std::span<T>;
#else
/// A view of `size()` elements, which stands in for std::span before C++20.
template <typename T> class Span {
public:
    using element_type = T;
    using value_type = std::remove_cv_t<T>;

    constexpr Span() noexcept = default;
    constexpr Span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}

    /// Views a container with data() and size() whose elements are `T`, or `T` without const.
    template <typename Container, typename Element = std::remove_pointer_t<decltype(std::data(std::declval<Container &>()))>,
              typename = std::enable_if_t<std::is_convertible_v<Element (*)[], T (*)[]>>>
    constexpr Span(Container &&container) noexcept : data_(std::data(container)), size_(std::size(container)) {}

    constexpr T *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }
    constexpr std::size_t size_bytes() const noexcept { return size_ * sizeof(T); }
    constexpr bool empty() const noexcept { return size_ == 0; }
    constexpr T *begin() const noexcept { return data_; }
    constexpr T *end() const noexcept { return data_ + size_; }
    constexpr T &operator[](std::size_t index) const noexcept { return data_[index]; }
    constexpr T &front() const noexcept { return data_[0]; }
    constexpr T &back() const noexcept { return data_[size_ - 1]; }
    constexpr Span first(std::size_t count) const noexcept { return {data_, count}; }
    constexpr Span last(std::size_t count) const noexcept { return {data_ + (size_ - count), count}; }
    constexpr Span subspan(std::size_t offset) const noexcept { return {data_ + offset, size_ - offset}; }
    constexpr Span subspan(std::size_t offset, std::size_t count) const noexcept { return {data_ + offset, count}; }

private:
    T *data_ = nullptr;
    std::size_t size_ = 0;
};
#endif

/// Bytes to read: std::span<const std::byte> from C++20 on, before that a type of the same shape.
using Bytes = Span<const std::byte>;

/// Bytes to write.
using MutableBytes = Span<std::byte>;

/// The sentence of this thread's last failure, until the next one; never null.
inline const char *last_error() noexcept { return sealane_last_error(); }

/// The version of the library, such as "0.1.0".
inline const char *version() noexcept { return sealane_version(); }

/// The ring capacity for payloads of `payload` bytes whose receiver keeps the last `kept` of them.
inline std::size_t ring_for(std::size_t payload, std::size_t kept) noexcept { return sealane_ring_for(payload, kept); }

/// Why a function failed: a positive errno, and a sentence.
///
/// EAGAIN and ETIMEDOUT have a fixed sentence, so that an event loop allocates nothing for them; last_error() has the
/// library's own until the thread's next failure. Other sentences are copied.
class [[nodiscard]] Error {
public:
    /// No failure: number 0.
    Error() noexcept = default;

    Error(int number, std::string message) noexcept : number_(number), message_(std::move(message)) {}

    /// The failure of the C function that has just returned this negative status in this thread.
    static Error from_status(int status) {
        bool fixed = status == -EAGAIN || status == -ETIMEDOUT;
        return {-status, fixed ? std::string() : std::string(sealane_last_error())};
    }

    /// A positive errno, or 0 for no failure.
    int number() const noexcept { return number_; }

    /// A sentence: what happened, what was expected and found. Valid for as long as this object, unchanged.
    const char *message() const noexcept {
        if (!message_.empty()) return message_.c_str();
        switch (number_) {
        case 0: return "no failure";
        case EAGAIN: return "nothing is there yet, or there is no room yet";
        case ETIMEDOUT: return "the deadline passed";
        default: return "no sentence";
        }
    }

    std::error_code code() const noexcept { return {number_, std::system_category()}; }

    friend bool operator==(const Error &error, int number) noexcept { return error.number_ == number; }
    friend bool operator!=(const Error &error, int number) noexcept { return error.number_ != number; }

private:
    int number_ = 0;
    std::string message_;
};

namespace detail {

[[noreturn]] inline void abort_without_value(const Error &error) noexcept {
    std::fprintf(stderr, "sealane: the value of a failed Result was read: %s (errno %d)\n", error.message(), error.number());
    std::abort();
}

[[noreturn]] inline void throw_without_value(const Error &error) {
#ifdef SEALANE_EXCEPTIONS
    throw std::system_error(error.code(), error.message());
#else
    abort_without_value(error);
#endif
}

} // namespace detail

/// A value, or the Error in its place; made like std::expected.
///
/// `*` and `->` on a failed Result print its sentence and abort; value() as well, or it throws (SEALANE_EXCEPTIONS).
/// A Result<bool> does not convert to bool: it would be unclear which of the two is meant.
template <typename T> class [[nodiscard]] Result {
public:
    using value_type = T;
    using error_type = Error;

    Result(T value) noexcept(std::is_nothrow_move_constructible_v<T>) : value_(std::move(value)) {}
    Result(Error error) noexcept : error_(std::move(error)) {}

    bool has_value() const noexcept { return value_.has_value(); }
    template <typename U = T, typename = std::enable_if_t<!std::is_same_v<U, bool>>> explicit operator bool() const noexcept {
        return has_value();
    }

    T &operator*() & noexcept { return *checked(); }
    const T &operator*() const & noexcept { return *checked(); }
    T operator*() && noexcept { return std::move(*checked()); }
    T *operator->() noexcept { return checked(); }
    const T *operator->() const noexcept { return checked(); }

    T &value() & { return has_value() ? *value_ : (detail::throw_without_value(error_), *value_); }
    const T &value() const & { return has_value() ? *value_ : (detail::throw_without_value(error_), *value_); }
    T value() && {
        if (!has_value()) detail::throw_without_value(error_);
        return std::move(*value_);
    }

    /// Number 0 where there is a value.
    const Error &error() const & noexcept { return error_; }
    Error error() && noexcept { return std::move(error_); }

private:
    T *checked() noexcept {
        if (!has_value()) detail::abort_without_value(error_);
        return &*value_;
    }
    const T *checked() const noexcept {
        if (!has_value()) detail::abort_without_value(error_);
        return &*value_;
    }

    std::optional<T> value_;
    Error error_;
};

/// Success, or an Error.
template <> class [[nodiscard]] Result<void> {
public:
    using value_type = void;
    using error_type = Error;

    Result() noexcept = default;
    Result(Error error) noexcept : error_(std::move(error)) {}

    bool has_value() const noexcept { return error_ == 0; }
    explicit operator bool() const noexcept { return has_value(); }
    void value() const {
        if (!has_value()) detail::throw_without_value(error_);
    }

    const Error &error() const & noexcept { return error_; }
    Error error() && noexcept { return std::move(error_); }

private:
    Error error_;
};

/// How long a function waits: `forever`, `no_wait`, or a duration.
///
/// Durations are rounded up to a millisecond; 0 and less is `no_wait`, and INT_MAX milliseconds (24 days) the longest.
class Timeout {
public:
    explicit constexpr Timeout(int milliseconds) noexcept : milliseconds_(milliseconds) {}

    template <typename Rep, typename Period> constexpr Timeout(std::chrono::duration<Rep, Period> duration) noexcept {
        // The comparison in double cannot overflow, and finds what is no number.
        constexpr int longest = std::numeric_limits<int>::max();
        double milliseconds = std::chrono::duration<double, std::milli>(duration).count();
        if (!(milliseconds > 0)) {
            milliseconds_ = 0;
        } else if (milliseconds >= longest) {
            milliseconds_ = longest;
        } else {
            milliseconds_ = static_cast<int>(std::chrono::ceil<std::chrono::milliseconds>(duration).count());
        }
    }

    /// The argument of C functions: -1, 0 or milliseconds.
    constexpr int milliseconds() const noexcept { return milliseconds_; }

private:
    int milliseconds_ = 0;
};

/// Waits without a limit.
inline constexpr Timeout forever{-1};

/// Looks once: EAGAIN if the function would have to wait.
inline constexpr Timeout no_wait{0};

/// A descriptor that is closed with this object; -1 is none.
class Fd {
public:
    Fd() noexcept = default;
    explicit Fd(int fd) noexcept : fd_(fd) {}
    Fd(Fd &&other) noexcept : fd_(other.release()) {}
    Fd &operator=(Fd &&other) noexcept {
        if (this != &other) reset(other.release());
        return *this;
    }
    ~Fd() { reset(); }

    int get() const noexcept { return fd_; }
    explicit operator bool() const noexcept { return fd_ >= 0; }

    /// Gives up the descriptor: the caller closes it.
    int release() noexcept { return std::exchange(fd_, -1); }

    /// Closes the descriptor, and owns another one, or none.
    void reset(int fd = -1) noexcept {
        if (fd_ >= 0) ::close(fd_);
        fd_ = fd;
    }

private:
    int fd_ = -1;
};

static_assert(std::is_standard_layout_v<Fd> && sizeof(Fd) == sizeof(int), "arrays of Fd are arrays of descriptors");

namespace detail {

/// Each bit of a value belongs to it, so that sending the value reveals nothing else.
template <typename T>
inline constexpr bool is_sendable = std::is_trivially_copyable_v<T> &&
                                    (std::has_unique_object_representations_v<T> || std::is_same_v<T, float> ||
                                     std::is_same_v<T, double>);

/// Any bits are a value.
template <typename T>
inline constexpr bool is_writable = std::is_trivially_copyable_v<T> && !std::is_const_v<T> && !std::is_same_v<T, bool>;

template <typename Container> using Element = std::remove_pointer_t<decltype(std::data(std::declval<Container &>()))>;

} // namespace detail

/// The bytes of a value without padding, in the machine's order.
template <typename T> Bytes bytes_of(const T &value) noexcept {
    static_assert(detail::is_sendable<T>, "padding would send bytes that are none of the value's");
    return {reinterpret_cast<const std::byte *>(&value), sizeof value};
}

/// The bytes of a value, to be written.
template <typename T> MutableBytes writable_bytes_of(T &value) noexcept {
    static_assert(detail::is_writable<T>, "not all bytes are a value of this type");
    return {reinterpret_cast<std::byte *>(&value), sizeof value};
}

/// A parameter: bytes that are read during the call.
///
/// It is made of Bytes, text (a char array up to its zero), other arrays, and containers with data() and size(), whose elements
/// have no padding.
class Data {
public:
    constexpr Data() noexcept = default;
    constexpr Data(Bytes bytes) noexcept : data_(bytes.data()), size_(bytes.size()) {}
    constexpr Data(std::string_view text) noexcept : data_(text.data()), size_(text.size()) {}
    template <typename Text, typename = std::enable_if_t<std::is_pointer_v<Text> && std::is_convertible_v<Text, const char *>>>
    constexpr Data(const Text &text) noexcept : Data(text ? std::string_view(text) : std::string_view()) {}
    template <std::size_t Size> constexpr Data(const char (&text)[Size]) noexcept : data_(text) {
        while (size_ < Size && text[size_] != 0) size_++;
    }
    template <typename Container, typename Element = detail::Element<const Container>,
              typename = std::enable_if_t<detail::is_sendable<std::remove_const_t<Element>> &&
                                          !(std::is_array_v<Container> && std::is_same_v<Element, const char>)>>
    constexpr Data(const Container &container) noexcept
        : data_(std::data(container)), size_(std::size(container) * sizeof(Element)) {}

    constexpr const void *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }

private:
    const void *data_ = nullptr;
    std::size_t size_ = 0;
};

/// A parameter: memory that is written during the call.
///
/// It is made of MutableBytes, arrays, and containers with data() and size().
class Destination {
public:
    constexpr Destination(MutableBytes bytes) noexcept : data_(bytes.data()), size_(bytes.size()) {}
    template <typename Container, typename Element = detail::Element<Container>,
              typename = std::enable_if_t<detail::is_writable<Element> &&
                                          !std::is_same_v<std::decay_t<Container>, Destination>>>
    constexpr Destination(Container &&container) noexcept
        : data_(std::data(container)), size_(std::size(container) * sizeof(Element)) {}

    constexpr void *data() const noexcept { return data_; }
    constexpr std::size_t size() const noexcept { return size_; }

private:
    void *data_ = nullptr;
    std::size_t size_ = 0;
};

/// A parameter: descriptors that go with a message, and stay the caller's.
///
/// It is made of a list in braces, and of arrays and containers of int or of Fd.
class Fds {
public:
    constexpr Fds() noexcept = default;
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Winit-list-lifetime"
#endif
    // The list lives until the call returns, for which a parameter is made.
    constexpr Fds(std::initializer_list<int> list) noexcept : fds_(list.begin()), count_(list.size()) {}
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic pop
#endif
    template <typename Container, typename Element = std::remove_const_t<detail::Element<const Container>>,
              typename = std::enable_if_t<std::is_same_v<Element, int> || std::is_same_v<Element, Fd>>>
    Fds(const Container &container) noexcept
        : fds_(reinterpret_cast<const int *>(std::data(container))), count_(std::size(container)) {}

    constexpr const int *data() const noexcept { return fds_; }
    constexpr std::size_t size() const noexcept { return count_; }

private:
    const int *fds_ = nullptr;
    std::size_t count_ = 0;
};

/// How functions of a channel wait: `sealane_options.wait`.
enum class Wait : std::uint32_t {
    /// Spin for up to max_spin, then sleep. The default.
    adaptive = SEALANE_WAIT_ADAPTIVE,
    /// Sleep at once.
    block = SEALANE_WAIT_BLOCK,
    /// Never sleep; occupies a CPU.
    spin = SEALANE_WAIT_SPIN,
};

/// Settings of one end of a channel; what is not set has its default. Numbers mean themselves here: 0 is 0.
///
///     Options().ring_capacity(1 << 20).max_fds(0)
class Options {
public:
    Options() noexcept { raw_.size = sizeof raw_; }
    /// Settings as C has them, where 0 is the default, SEALANE_NONE a 0, and SEALANE_NO_RING no ring.
    explicit Options(const sealane_options &options) noexcept : raw_(options) {}

    /// Bytes of this end's ring, rounded up to a page; see ring_for. 0: no ring, and so no payloads are sent.
    Options &ring_capacity(std::uint64_t bytes) noexcept { return set(raw_.ring_capacity, ring(bytes)); }
    /// Most bytes of the peer's ring. 0: no ring, and so no payloads are received.
    Options &max_peer_ring_capacity(std::uint64_t bytes) noexcept { return set(raw_.max_peer_ring_capacity, ring(bytes)); }
    /// Most control bytes of a message that this end receives.
    Options &max_control(std::uint32_t bytes) noexcept { return set(raw_.max_control, number(bytes)); }
    /// Most descriptors of a message that this end receives.
    Options &max_fds(std::uint32_t count) noexcept { return set(raw_.max_fds, number(count)); }
    /// Most requests without a reply, in either direction.
    Options &max_requests(std::uint32_t count) noexcept { return set(raw_.max_requests, number(count)); }
    /// Longest duration of a handshake; more than 0.
    Options &handshake_timeout(std::chrono::milliseconds time) noexcept {
        return set(raw_.handshake_timeout_ms, number(clamped(time.count())));
    }
    Options &wait(Wait wait) noexcept { return set(raw_.wait, static_cast<std::uint32_t>(wait)); }
    /// Longest spinning of Wait::adaptive.
    Options &max_spin(std::chrono::microseconds time) noexcept { return set(raw_.max_spin_us, number(clamped(time.count()))); }
    /// Map all memory at once, instead of at its first use.
    Options &prefault(bool on) noexcept { return set(raw_.prefault, choice(on)); }
    /// Make this end's ring of 2 MiB pages.
    Options &huge_pages(bool on) noexcept { return set(raw_.huge_pages, choice(on)); }
    /// Ask for a pidfd of the peer's process; see Channel::pidfd.
    Options &peer_pidfd(bool on) noexcept { return set(raw_.peer_pidfd, choice(on)); }

    const sealane_options *get() const noexcept { return &raw_; }

private:
    static constexpr std::uint32_t none = SEALANE_NONE;

    template <typename T> Options &set(T &field, T value) noexcept {
        field = value;
        return *this;
    }
    static std::uint32_t choice(bool on) noexcept { return on ? 1 : none; }
    // A number that C reads as another becomes its neighbour, which is the same limit, and the same page of a ring.
    static std::uint32_t number(std::uint32_t value) noexcept { return value == 0 ? none : value == none ? none - 1 : value; }
    static std::uint64_t ring(std::uint64_t bytes) noexcept {
        return bytes == 0 ? SEALANE_NO_RING : bytes == SEALANE_NO_RING ? bytes + 1 : bytes;
    }
    template <typename Count> static std::uint32_t clamped(Count count) noexcept {
        return count <= 0 ? 0 : static_cast<std::uint64_t>(count) >= none ? none - 1 : static_cast<std::uint32_t>(count);
    }

    sealane_options raw_{};
};

/// The process at the other end, as it was at the handshake.
using Peer = sealane_peer;

/// How large a message may be in one direction.
using Limits = sealane_limits;

namespace detail {

/// The owner of a handle of C.
template <typename T, void (*Free)(T **)> class Handle {
public:
    using raw_type = T;

    Handle() noexcept = default;
    /// Takes over a handle that C functions made.
    explicit Handle(T *raw) noexcept : raw_(raw) {}
    Handle(Handle &&other) noexcept : raw_(other.detach()) {}
    Handle &operator=(Handle &&other) noexcept {
        if (this != &other) {
            reset();
            raw_ = other.detach();
        }
        return *this;
    }
    ~Handle() { reset(); }

    /// False if the object is empty.
    explicit operator bool() const noexcept { return raw_ != nullptr; }
    /// The handle, which stays this object's, for functions of sealane.h.
    T *get() const noexcept { return raw_; }
    /// Gives up the handle: the caller frees it.
    T *detach() noexcept { return std::exchange(raw_, nullptr); }
    /// Frees the handle.
    void reset() noexcept { Free(&raw_); }

protected:
    T *raw_ = nullptr;
};

inline Result<void> done(int status) {
    if (status < 0) return Error::from_status(status);
    return {};
}

inline Result<int> number(int status) {
    if (status < 0) return Error::from_status(status);
    return status;
}

inline Result<bool> flag(int status) {
    if (status < 0) return Error::from_status(status);
    return status != 0;
}

inline std::optional<std::uint64_t> optional_number(int status, std::uint64_t number) noexcept {
    if (status == 1) return number;
    return std::nullopt;
}

/// What `call` makes at the address that it is given.
template <typename Made, typename Call> Result<Made> make(Call &&call) {
    typename Made::raw_type *raw = nullptr;
    int status = call(&raw);
    if (status < 0) return Error::from_status(status);
    return Made(raw);
}

/// A failure for text that C would read in part only.
inline Error check_text(const std::string &text) {
    if (text.find('\0') == std::string::npos) return {};
    return {EINVAL, "a path or a name without zeros expected, a zero found"};
}

/// The context of `sealane_message_blocks`: the caller's function, and what it threw.
template <typename Each> struct Blocks {
    Each &each;
#ifdef __cpp_exceptions
    std::exception_ptr thrown = nullptr;
#endif

    static int call(void *context, const void *bytes, std::size_t size) noexcept {
        auto &self = *static_cast<Blocks *>(context);
#ifdef __cpp_exceptions
        try {
            return self.next({static_cast<const std::byte *>(bytes), size});
        } catch (...) {
            // An exception must not pass through the library's frames.
            self.thrown = std::current_exception();
            return 1;
        }
#else
        return self.next({static_cast<const std::byte *>(bytes), size});
#endif
    }

    int next(Bytes block) {
        using Returned = std::invoke_result_t<Each &, Bytes>;
        static_assert(std::is_void_v<Returned> || std::is_same_v<Returned, bool>, "a function that returns void or bool expected");
        if constexpr (std::is_void_v<Returned>) {
            each(block);
            return 0;
        } else {
            return each(block) ? 0 : 1;
        }
    }
};

} // namespace detail

/// A message that was received. Its payload holds room in the sender's ring until the message is destroyed, or its payload
/// released. It may outlive its channel.
class Message : public detail::Handle<sealane_message, sealane_message_free> {
public:
    using Handle::Handle;

    /// The control bytes: private memory, valid until the message is destroyed.
    Bytes control() const noexcept {
        std::size_t size = 0;
        const void *bytes = sealane_message_control(raw_, &size);
        return {static_cast<const std::byte *>(bytes), size};
    }

    /// Whether there is a payload, which may have no bytes.
    bool has_payload() const noexcept { return sealane_message_has_payload(raw_) == 1; }

    /// Bytes of the payload; 0 where there is none.
    std::size_t payload_size() const noexcept { return sealane_message_payload_len(raw_); }

    /// The bytes of a message of Pipe::send, request, reply or call: those of the payload, which the first call copies, or else
    /// the control bytes. They are private memory, valid until the message is destroyed, also after release().
    Bytes bytes() const noexcept {
        std::size_t size = 0;
        const void *bytes = sealane_message_bytes(raw_, &size);
        return {static_cast<const std::byte *>(bytes), size};
    }

    /// Fills all of `destination` from the payload, from `offset` on.
    ///
    /// EINVAL: the range reaches past the payload's end; nothing is copied. ENODATA: no payload.
    Result<void> copy_to(Destination destination, std::size_t offset = 0) const {
        return detail::done(sealane_message_copy(raw_, offset, destination.data(), destination.size()));
    }

    /// Calls `each` with all of the payload, block by block: private copies (Bytes) of at most 8 KiB, valid during the call.
    ///
    /// `each` returns void, or a bool: false ends the reading, which is no failure. What it throws is thrown to the caller. It
    /// must not use this message, nor leave by longjmp(3). ENODATA: no payload.
    template <typename Each> Result<void> blocks(Each &&each) const {
        detail::Blocks<std::remove_reference_t<Each>> context{each};
        int status = sealane_message_blocks(raw_, context.call, &context);
#ifdef __cpp_exceptions
        if (context.thrown) std::rethrow_exception(std::move(context.thrown));
#endif
        return detail::done(status);
    }

    /// Releases the payload's room. Control bytes and descriptors stay.
    Result<void> release() { return detail::done(sealane_message_release(raw_)); }

    /// Descriptors that were not taken yet. They are closed with the message.
    std::size_t fd_count() const noexcept { return sealane_message_fd_count(raw_); }

    /// Takes all descriptors that are left, in the order in which they were sent. They are close-on-exec.
    std::vector<Fd> take_fds() {
        // The memory comes first: a failure to allocate it takes nothing.
        std::vector<Fd> fds(fd_count());
        sealane_message_take_fds(raw_, reinterpret_cast<int *>(fds.data()), fds.size());
        return fds;
    }

    /// Takes the next descriptor; an empty Fd if none is left.
    Fd take_fd() noexcept {
        int fd = -1;
        sealane_message_take_fds(raw_, &fd, 1);
        return Fd(fd);
    }

    /// The request's number, for a reply, if the sender expects one.
    std::optional<std::uint64_t> expects_reply() const noexcept {
        std::uint64_t number = 0;
        int status = sealane_message_expects_reply(raw_, &number);
        return detail::optional_number(status, number);
    }

    /// The number of our request, if this message is the reply to one.
    std::optional<std::uint64_t> in_reply_to() const noexcept {
        std::uint64_t number = 0;
        int status = sealane_message_in_reply_to(raw_, &number);
        return detail::optional_number(status, number);
    }

    /// The message's number among all that its sender has sent on this channel.
    std::uint64_t number() const noexcept {
        std::uint64_t number = 0;
        sealane_message_number(raw_, &number);
        return number;
    }
};

/// Memory in the ring, to be filled and sent. While it is open, the channel's sending functions fail with EBUSY.
///
/// A loan that was sent is empty; one whose sending failed is open as before, and can be sent again. One that is destroyed sends
/// nothing. It ends with its channel, and its memory with it.
class Loan : public detail::Handle<sealane_loan, sealane_loan_free> {
public:
    using Handle::Handle;

    /// The memory, aligned to 64 bytes, until the loan is sent. Fill all of it: the peer sees old bytes of the ring otherwise.
    MutableBytes data() noexcept { return {static_cast<std::byte *>(sealane_loan_data(raw_)), size()}; }

    std::size_t size() const noexcept { return sealane_loan_len(raw_); }

    /// Keeps the first `size` bytes. EINVAL: there are fewer.
    Result<void> truncate(std::size_t size) { return detail::done(sealane_loan_truncate(raw_, size)); }

    /// Sends the loan as a message's payload, with control bytes and descriptors. Only descriptors, or more than 1 KiB of
    /// control bytes, can make it wait. Failures of Channel::send.
    Result<void> send(Data control, Timeout timeout, Fds fds = {}) {
        return detail::done(
            sealane_loan_send(&raw_, control.data(), control.size(), fds.data(), fds.size(), timeout.milliseconds()));
    }

    /// Sends the loan as a request, and returns its number: the reply's in_reply_to().
    Result<std::uint64_t> request(Data control, Timeout timeout, Fds fds = {}) {
        std::uint64_t number = 0;
        int status = sealane_loan_request(&raw_, control.data(), control.size(), fds.data(), fds.size(), timeout.milliseconds(),
                                          &number);
        if (status < 0) return Error::from_status(status);
        return number;
    }

    /// Sends the loan as the reply to the request with this number. ENOENT: no such request waits.
    Result<void> reply(std::uint64_t number, Data control, Timeout timeout, Fds fds = {}) {
        return detail::done(
            sealane_loan_reply(&raw_, number, control.data(), control.size(), fds.data(), fds.size(), timeout.milliseconds()));
    }
};

/// The functions of a channel. Those who have one: Channel, which owns it, and ChannelRef.
class ChannelFunctions {
public:
    /// False if there is no channel.
    explicit operator bool() const noexcept { return raw_ != nullptr; }
    /// The handle, for functions of sealane.h.
    sealane_channel *get() const noexcept { return raw_; }

    /// Sends a message without a payload: whole or not at all. Waits while the socket is full.
    ///
    /// EAGAIN: no room; send_fd() says when to try again. EPIPE: the peer is gone. EMSGSIZE: more bytes or descriptors than the
    /// peer accepts. EBUSY: a loan is open, or another thread is sending. ETOOMANYREFS: try again after some milliseconds.
    Result<void> send(Data control, Timeout timeout, Fds fds = {}) {
        return detail::done(
            sealane_send(raw_, control.data(), control.size(), fds.data(), fds.size(), timeout.milliseconds()));
    }

    /// Sends a message that expects a reply, and returns its number: the reply's in_reply_to(). Failures of send.
    ///
    /// EDQUOT: too many requests are without a reply.
    Result<std::uint64_t> request(Data control, Timeout timeout, Fds fds = {}) {
        std::uint64_t number = 0;
        int status =
            sealane_request(raw_, control.data(), control.size(), fds.data(), fds.size(), timeout.milliseconds(), &number);
        if (status < 0) return Error::from_status(status);
        return number;
    }

    /// Replies to the request with this number (Message::expects_reply). ENOENT: no such request waits. Failures of send.
    Result<void> reply(std::uint64_t number, Data control, Timeout timeout, Fds fds = {}) {
        return detail::done(
            sealane_reply(raw_, number, control.data(), control.size(), fds.data(), fds.size(), timeout.milliseconds()));
    }

    /// Sends a request and waits for its reply; `timeout` is for both. Messages that come in between are kept for recv, and
    /// recv_fd() does not announce them: receive until EAGAIN, or call arm, before you wait for it.
    ///
    /// ETIMEDOUT: a reply that comes later is dropped; with `no_wait` nothing is sent. EPIPE as soon as the peer is gone.
    /// ENOBUFS: more messages came in between than a channel keeps. EBUSY: another thread is sending, or receiving.
    Result<Message> call(Data control, Timeout timeout, Fds fds = {}) {
        return detail::make<Message>([&](sealane_message **reply) {
            return sealane_call(raw_, control.data(), control.size(), fds.data(), fds.size(), timeout.milliseconds(), reply);
        });
    }

    /// The number that the next message of this end will have, so that of a request: to be noted before it is sent, where
    /// another thread receives. EBUSY: a loan is open, or another thread is sending.
    Result<std::uint64_t> next_number() {
        std::uint64_t number = 0;
        int status = sealane_channel_next_number(raw_, &number);
        if (status < 0) return Error::from_status(status);
        return number;
    }

    /// Waits for the reply to the request with this number. Messages that come in between are kept for recv.
    ///
    /// ENOENT: no such request, or it was answered or forgotten. ETIMEDOUT: the request is forgotten. ENOBUFS: it is not; receive,
    /// then wait again. Others of call.
    Result<Message> wait_reply(std::uint64_t number, Timeout timeout) {
        return detail::make<Message>(
            [&](sealane_message **reply) { return sealane_wait_reply(raw_, number, timeout.milliseconds(), reply); });
    }

    /// Forgets a request of this end: its reply is dropped. Any thread may call it. ENOENT: no such request.
    Result<void> cancel(std::uint64_t number) { return detail::done(sealane_cancel(raw_, number)); }

    /// Receives the next message.
    ///
    /// EAGAIN: nothing is there; recv_fd() says when to try again. EPIPE: the peer is gone, and everything was received. EPROTO:
    /// the peer broke the protocol; the channel is closed. EMFILE: a message is lost, and the channel works. EBUSY: another
    /// thread is receiving.
    Result<Message> recv(Timeout timeout) {
        return detail::make<Message>(
            [&](sealane_message **message) { return sealane_recv(raw_, timeout.milliseconds(), message); });
    }

    /// Lends `size` bytes of the ring, to be filled and sent. Waits for room. At most one loan is open at a time.
    ///
    /// EAGAIN: no room; send_fd() says when to try again. EMSGSIZE: longer than the ring can hold. EPIPE, EBUSY: see send.
    Result<Loan> loan(std::size_t size, Timeout timeout) {
        return detail::make<Loan>(
            [&](sealane_loan **loan) { return sealane_loan_open(raw_, size, timeout.milliseconds(), loan); });
    }

    /// Ends both directions at once, from any thread: functions that wait fail with EPIPE.
    Result<void> close() { return detail::done(sealane_channel_close(raw_)); }

    /// Asks, without taking a message: true if there is none, and recv_fd() will be readable when one comes.
    Result<bool> arm() { return detail::flag(sealane_channel_arm(raw_)); }

    /// The descriptor for poll(2), POLLIN, once recv has failed with EAGAIN, or arm returned true. It stays the channel's.
    int recv_fd() const noexcept { return sealane_channel_recv_fd(raw_); }

    /// The descriptor for poll(2), POLLIN, once a sending function has failed with EAGAIN. It stays the channel's.
    int send_fd() const noexcept { return sealane_channel_send_fd(raw_); }

    /// How large a message to the peer may be.
    Limits send_limits() const noexcept {
        Limits limits{};
        sealane_channel_limits(raw_, &limits, nullptr);
        return limits;
    }

    /// How large a message from the peer may be.
    Limits recv_limits() const noexcept {
        Limits limits{};
        sealane_channel_limits(raw_, nullptr, &limits);
        return limits;
    }

    /// The process at the other end.
    Peer peer() const noexcept {
        Peer peer{};
        sealane_channel_peer(raw_, &peer);
        return peer;
    }

    /// A pidfd of the peer's process, which stays the channel's. ENOENT: not asked for, or the kernel has none.
    Result<int> pidfd() const { return detail::number(sealane_channel_pidfd(raw_)); }

protected:
    ChannelFunctions() noexcept = default;
    explicit ChannelFunctions(sealane_channel *raw) noexcept : raw_(raw) {}
    ChannelFunctions(const ChannelFunctions &) noexcept = default;
    // Not for those who have only the functions: a channel that is owned must not be replaced by a copy of another.
    ChannelFunctions &operator=(const ChannelFunctions &) noexcept = default;
    ~ChannelFunctions() = default;

    sealane_channel *raw_ = nullptr;
};

/// A channel that somebody else owns. A copy is the same channel, and valid for as long as that.
class ChannelRef : public ChannelFunctions {
public:
    ChannelRef() noexcept = default;
    explicit ChannelRef(sealane_channel *raw) noexcept : ChannelFunctions(raw) {}
    ChannelRef(const ChannelFunctions &channel) noexcept : ChannelFunctions(channel) {}
};

/// One end of a channel. Its destructor closes it; what was sent before is still delivered, and messages stay valid.
class Channel : public ChannelFunctions {
public:
    using raw_type = sealane_channel;

    Channel() noexcept = default;
    /// Takes over a handle that C functions made.
    explicit Channel(sealane_channel *raw) noexcept : ChannelFunctions(raw) {}
    Channel(Channel &&other) noexcept : ChannelFunctions(other.detach()) {}
    Channel &operator=(Channel &&other) noexcept {
        if (this != &other) {
            reset();
            raw_ = other.detach();
        }
        return *this;
    }
    ~Channel() { reset(); }

    /// Gives up the handle: the caller frees it.
    sealane_channel *detach() noexcept { return std::exchange(raw_, nullptr); }
    /// Closes and frees the channel.
    void reset() noexcept { sealane_channel_free(&raw_); }

    /// Connects to a listener at a path, or at an abstract name behind "@"; blocks until the handshake's end.
    ///
    /// ECONNREFUSED: nobody listens, or one side refused the other. ENOENT: no such path. ETIMEDOUT. ECONNRESET.
    static Result<Channel> connect(const std::string &path, const Options &options = {}) {
        if (Error error = detail::check_text(path); error != 0) return error;
        return detail::make<Channel>(
            [&](sealane_channel **channel) { return sealane_connect(options.get(), path.c_str(), channel); });
    }

    /// In a child: makes the channel that the parent prepared, under the name that the environment's SEALANE_FD has. Blocks
    /// until the handshake's end.
    static Result<Channel> inherited(const Options &options = {}) {
        return detail::make<Channel>(
            [&](sealane_channel **channel) { return sealane_inherited_as(options.get(), nullptr, channel); });
    }

    /// In a child: makes the channel that the parent prepared; `name` is Handshake::child_name(), or a descriptor's number.
    /// Blocks until the handshake's end.
    ///
    /// ENOENT: no such descriptor. EALREADY: taken before.
    static Result<Channel> inherited_as(const std::string &name, const Options &options = {}) {
        if (Error error = detail::check_text(name); error != 0) return error;
        return detail::make<Channel>(
            [&](sealane_channel **channel) { return sealane_inherited_as(options.get(), name.c_str(), channel); });
    }

    /// Makes both ends of a channel in this process.
    static Result<std::pair<Channel, Channel>> pair(const Options &options = {}) {
        sealane_channel *a = nullptr, *b = nullptr;
        int status = sealane_pair(options.get(), &a, &b);
        if (status < 0) return Error::from_status(status);
        return std::pair(Channel(a), Channel(b));
    }
};

/// A channel that is being established, without blocking.
class Handshake : public detail::Handle<sealane_handshake, sealane_handshake_free> {
public:
    using Handle::Handle;

    /// Begins to connect to a listener. EAGAIN: too many clients wait there. Failures of Channel::connect.
    static Result<Handshake> connect_start(const std::string &path, const Options &options = {}) {
        if (Error error = detail::check_text(path); error != 0) return error;
        return detail::make<Handshake>(
            [&](sealane_handshake **handshake) { return sealane_connect_start(options.get(), path.c_str(), handshake); });
    }

    /// Begins on a connected AF_UNIX SOCK_SEQPACKET socket, which is duplicated: close yours. EPROTOTYPE: another kind.
    static Result<Handshake> start(int fd, const Options &options = {}) {
        return detail::make<Handshake>(
            [&](sealane_handshake **handshake) { return sealane_handshake_start(options.get(), fd, handshake); });
    }

    /// Prepares a channel to a child process, which is started later, in any way. The handshake's time begins here.
    ///
    /// Start the child with child_fd() and child_name(), then call child_started(), then finish(), or advance() in a loop.
    static Result<Handshake> prepare(const Options &options = {}) {
        return detail::make<Handshake>(
            [&](sealane_handshake **handshake) { return sealane_prepare(options.get(), handshake); });
    }

    /// The child's end of prepare(): close-on-exec, and the handshake's.
    Result<int> child_fd() const { return detail::number(sealane_handshake_child_fd(raw_)); }

    /// The string by which the child finds its end (Channel::inherited_as): for its arguments.
    Result<std::string> child_name() const {
        char name[SEALANE_NAME_SIZE];
        int status = sealane_handshake_child_name(raw_, name, sizeof name);
        if (status < 0) return Error::from_status(status);
        return std::string(name);
    }

    /// Closes this process's copy of the child's end. Call it when the child runs.
    Result<void> child_started() { return detail::done(sealane_handshake_child_started(raw_)); }

    /// The descriptor for poll(2), POLLIN, before the next advance. It stays the handshake's. EBUSY: child_started() first.
    Result<int> fd() const { return detail::number(sealane_handshake_fd(raw_)); }

    /// Time until the handshake fails: wait no longer for its descriptor.
    Result<std::chrono::milliseconds> remaining() const {
        int status = sealane_handshake_remaining_ms(raw_);
        if (status < 0) return Error::from_status(status);
        return std::chrono::milliseconds(status);
    }

    /// Takes the steps that are possible at once: true when finish() will not block.
    ///
    /// EAGAIN and ETOOMANYREFS pass: call again after some milliseconds. EBUSY: child_started() first. Every other failure ends
    /// the handshake.
    Result<bool> advance() { return detail::flag(sealane_handshake_advance(raw_)); }

    /// Whether the last advance left more to do at once: it stops where peer() is known, before a client is given anything.
    bool needs_advance() const noexcept { return sealane_handshake_needs_advance(raw_) == 1; }

    /// The process at the other end; its version is 0. EAGAIN while it is unknown.
    Result<Peer> peer() const {
        Peer peer{};
        int status = sealane_handshake_peer(raw_, &peer);
        if (status < 0) return Error::from_status(status);
        return peer;
    }

    /// Waits for the handshake's end, and makes the channel. This object is empty afterwards, except for EBUSY.
    Result<Channel> finish() {
        return detail::make<Channel>([&](sealane_channel **channel) { return sealane_handshake_finish(&raw_, channel); });
    }

    /// Refuses the peer, which gets ECONNREFUSED, or EPROTO where its side is complete. This object is empty afterwards.
    Result<void> refuse() { return detail::done(sealane_handshake_refuse(&raw_)); }
};

/// A socket to which other processes connect. Several threads may accept at once. Accepted channels may outlive it.
class Listener : public detail::Handle<sealane_listener, sealane_listener_free> {
public:
    using Handle::Handle;

    /// Listens at a path (mode 0600, removed at the end), or at an abstract name behind "@". EADDRINUSE: it is taken.
    static Result<Listener> listen(const std::string &path, const Options &options = {}) {
        if (Error error = detail::check_text(path); error != 0) return error;
        return detail::make<Listener>(
            [&](sealane_listener **listener) { return sealane_listen(options.get(), path.c_str(), listener); });
    }

    /// Listens on a socket that listens already. It is duplicated, and becomes non-blocking. EINVAL: no such socket.
    static Result<Listener> listen_on(int fd, const Options &options = {}) {
        return detail::make<Listener>(
            [&](sealane_listener **listener) { return sealane_listen_on(options.get(), fd, listener); });
    }

    /// The descriptor for poll(2), POLLIN, before accept_start. It stays the listener's.
    int fd() const noexcept { return sealane_listener_fd(raw_); }

    /// Waits for a client, and then for its handshake's end, which has a time of its own.
    ///
    /// EAGAIN: no client. ETIMEDOUT: no client, or one that was too slow. Another failure is that of one client.
    Result<Channel> accept(Timeout timeout) {
        return detail::make<Channel>(
            [&](sealane_channel **channel) { return sealane_accept(raw_, timeout.milliseconds(), channel); });
    }

    /// Takes a client that has connected; continue with Handshake::advance. EAGAIN: no client.
    Result<Handshake> accept_start() {
        return detail::make<Handshake>([&](sealane_handshake **handshake) { return sealane_accept_start(raw_, handshake); });
    }
};

/// Message passing for event loops: a handshake and then a channel with one descriptor, and a queue for what is sent before the
/// peer is there.
///
/// Messages have any size up to the channel's limits; Message::bytes reads them. One thread at a time may use a pipe.
class Pipe : public detail::Handle<sealane_pipe, sealane_pipe_free> {
public:
    using Handle::Handle;

    /// A pipe's results of dispatch.
    struct Ready {
        /// recv has something to say: a message, or the end.
        bool can_recv;
        /// Sending that failed with EAGAIN can be tried again.
        bool can_send;
    };

    /// Makes a pipe of a handshake, which is empty afterwards, except for EBUSY: Handshake::child_started() first.
    static Result<Pipe> from(Handshake &&handshake) {
        sealane_handshake *raw = handshake.detach();
        auto pipe = detail::make<Pipe>([&](sealane_pipe **made) { return sealane_pipe_new(&raw, made); });
        handshake = Handshake(raw);
        return pipe;
    }

    /// Makes a pipe of a channel, which is empty afterwards, unless this fails. EBUSY: a loan is open, or a thread is sending.
    static Result<Pipe> from(Channel &&channel) {
        sealane_channel *raw = channel.detach();
        auto pipe = detail::make<Pipe>([&](sealane_pipe **made) { return sealane_pipe_from_channel(&raw, made); });
        channel = Channel(raw);
        return pipe;
    }

    /// The only descriptor for poll(2), POLLIN: call dispatch() when it is readable. It stays the pipe's, and the same.
    int fd() const noexcept { return sealane_pipe_fd(raw_); }

    /// Goes on with the handshake, sends what is queued, and tells what can be done; never blocks.
    ///
    /// The handshake's failure is returned by every later call. EMSGSIZE: a queued message was larger than the peer accepts, and
    /// is dropped; the pipe works. The end of a connected pipe is told by recv.
    Result<Ready> dispatch() {
        int status = sealane_pipe_dispatch(raw_);
        if (status < 0) return Error::from_status(status);
        return Ready{(status & SEALANE_PIPE_CAN_RECV) != 0, (status & SEALANE_PIPE_CAN_SEND) != 0};
    }

    /// The channel, for its limits, its peer and loans; empty before the pipe is connected. It is valid for as long as the pipe.
    /// Receive through the pipe only.
    ChannelRef channel() noexcept { return ChannelRef(sealane_pipe_channel(raw_)); }

    /// Sends bytes and descriptors: whole or not at all. Never blocks; queued before the pipe is connected.
    ///
    /// EAGAIN: no room; try again when dispatch() says can_send. EMSGSIZE: more than the peer accepts, or the ring can hold.
    /// EPIPE: the peer is gone. Others of Channel::send, and the handshake's.
    Result<void> send(Data bytes, Fds fds = {}) {
        return detail::done(sealane_pipe_send_any(raw_, bytes.data(), bytes.size(), fds.data(), fds.size()));
    }

    /// Sends a message that expects a reply, and returns its number: the reply's in_reply_to(). Failures of send; EAGAIN also
    /// before the pipe is connected.
    Result<std::uint64_t> request(Data bytes, Fds fds = {}) {
        std::uint64_t number = 0;
        int status = sealane_pipe_request_any(raw_, bytes.data(), bytes.size(), fds.data(), fds.size(), &number);
        if (status < 0) return Error::from_status(status);
        return number;
    }

    /// Replies to the request with this number (Message::expects_reply). ENOENT: no such request waits. Failures of send.
    Result<void> reply(std::uint64_t number, Data bytes, Fds fds = {}) {
        return detail::done(sealane_pipe_reply_any(raw_, number, bytes.data(), bytes.size(), fds.data(), fds.size()));
    }

    /// Sends a request and waits for its reply, and before it for the handshake; `timeout` is for all. Messages that come in
    /// between are kept, and fd() is readable for them.
    ///
    /// ETIMEDOUT: with `no_wait` nothing is sent. EPIPE as soon as the peer is gone. Others of Channel::call, and the handshake's.
    Result<Message> call(Data bytes, Timeout timeout, Fds fds = {}) {
        return detail::make<Message>([&](sealane_message **reply) {
            return sealane_pipe_call_any(raw_, bytes.data(), bytes.size(), fds.data(), fds.size(), timeout.milliseconds(), reply);
        });
    }

    /// Waits for the reply to the request with this number, of this pipe or of a loan of its channel. Failures of
    /// Channel::wait_reply.
    Result<Message> wait_reply(std::uint64_t number, Timeout timeout) {
        return detail::make<Message>(
            [&](sealane_message **reply) { return sealane_pipe_wait_reply(raw_, number, timeout.milliseconds(), reply); });
    }

    /// Receives the next message. After `no_wait`, fd() is readable if there is another one. A loop that waits for no room can
    /// call this alone, without dispatch(), which saves two system calls a message.
    ///
    /// EAGAIN: nothing is there. EPIPE: the peer is gone, and everything was received. Others of Channel::recv, and the
    /// handshake's.
    Result<Message> recv(Timeout timeout) {
        return detail::make<Message>(
            [&](sealane_message **message) { return sealane_pipe_recv(raw_, timeout.milliseconds(), message); });
    }
};

/// Memory of a memfd: written first, then immutable for every process and for ever. Once sealed, several threads may read it.
class Sealed : public detail::Handle<sealane_sealed, sealane_sealed_free> {
public:
    using Handle::Handle;

    /// Makes a buffer of `size` bytes, all 0.
    static Result<Sealed> make(std::size_t size) {
        return detail::make<Sealed>([&](sealane_sealed **sealed) { return sealane_sealed_new(size, sealed); });
    }

    /// Verifies and maps a received descriptor: a sealed memfd of at most `max` bytes. It is duplicated. EBADMSG: not that.
    static Result<Sealed> open(int fd, std::uint64_t max) {
        return detail::make<Sealed>([&](sealane_sealed **sealed) { return sealane_sealed_open(fd, max, sealed); });
    }

    /// The memory to write; empty once it is sealed.
    MutableBytes data_mut() noexcept {
        auto *data = static_cast<std::byte *>(sealane_sealed_data_mut(raw_));
        return {data, data ? size() : 0};
    }

    /// The bytes, until this object is destroyed, or sealed.
    Bytes data() const noexcept { return {static_cast<const std::byte *>(sealane_sealed_data(raw_)), size()}; }

    std::size_t size() const noexcept { return sealane_sealed_len(raw_); }

    /// Makes the buffer immutable. Views of it end here. EINVAL: sealed before. After another failure the contents are gone.
    Result<void> seal() { return detail::done(sealane_sealed_seal(raw_)); }

    /// The descriptor to send, which stays the buffer's. EINVAL: not sealed yet.
    Result<int> fd() const { return detail::number(sealane_sealed_fd(raw_)); }
};

} // inline namespace SEALANE_SETTINGS_
} // namespace sealane

#undef SEALANE_SETTINGS_

#endif
