#ifndef SECOND_HPP
#define SECOND_HPP

#include <cstddef>

std::size_t size_of_a_message_between_two_channels();

#endif
