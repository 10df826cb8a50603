// A second translation unit, whose standard and settings may be others: both are linked into one program.
#include <sealane.hpp>

#include "second.hpp"

std::size_t size_of_a_message_between_two_channels() {
    auto pair = sealane::Channel::pair();
    if (!pair) return 0;
    if (!pair->first.send("second", sealane::no_wait)) return 0;
    auto message = pair->second.recv(sealane::forever);
    return message ? message->control().size() : 0;
}
