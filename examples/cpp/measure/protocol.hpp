// The messages of the program and its worker, and how both check them.
#ifndef PROTOCOL_HPP
#define PROTOCOL_HPP

#include <cstdint>
#include <cstring>
#include <sealane.hpp>

enum Command : std::uint32_t {
    /// A call, answered with a Description.
    describe = 1,
    /// A call, answered with its data.
    echo,
    /// The same with one descriptor.
    echo_with_fd,
    /// A call without an answer.
    hang,
    /// Words, counted.
    count,
    /// Words that make the worker send a Sum of these words and all that were counted since the last Sum.
    sum,
};

struct Description {
    std::uint64_t pid;
    std::uint64_t counted;
    /// The inode of the descriptor, 0 without one.
    std::uint64_t inode;
};

using Sum = std::uint64_t;
using Word = std::uint64_t;

/// Consecutive words from `first` on; bytes that are left over are 0.
inline void fill(sealane::MutableBytes bytes, Word first) {
    std::size_t words = bytes.size() / sizeof(Word);
    for (std::size_t i = 0; i < words; i++) {
        Word word = first + i;
        std::memcpy(bytes.data() + i * sizeof word, &word, sizeof word);
    }
    std::memset(bytes.data() + words * sizeof(Word), 0, bytes.size() % sizeof(Word));
}

/// What sum_of finds in filled bytes of this size.
inline Sum filled_sum(std::size_t size, Word first) {
    Word words = size / sizeof(Word);
    return words * first + words * (words - 1) / 2;
}

inline Sum sum_of(sealane::Bytes bytes) {
    Sum sum = 0;
    std::size_t words = bytes.size() / sizeof(Word);
    for (std::size_t i = 0; i < words; i++) {
        Word word;
        std::memcpy(&word, bytes.data() + i * sizeof word, sizeof word);
        sum += word;
    }
    return sum;
}

#endif
