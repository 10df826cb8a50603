//! The help page of `top`: its keys, and what its columns say. At most 22 lines, for the smallest usual terminal.

/// What is shown in place of the table.
pub(super) const HELP: &str = "\
q            quit                       /          filter: rows with a text
s            sort by the next column    Esc        no filter; leaves this page
r            reverse the order          p, space   pause
+, -         longer, shorter interval   ↑ ↓        scroll, also by page keys
Ctrl-Z       stop, until `fg`           ?          this page

KIND         a channel's direction, a publisher, or one of its subscribers
FROM, TO     sending and receiving process, with its user; +1: a fork has it too
MSG/S        messages sent, each second
BYTES/S      bytes put into the ring, each second, with headers
RING         size of the sender's ring
IN USE       bytes that the receiver has not released; of a subscriber, its lag
HIGH         the most bytes that were in use at once
WAITS        how often the sender found no space, since the last look
MISSED       messages that the subscriber has missed
STATE        who waits for whom, and whether the receiver sleeps";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::rates::HEADER;

    #[test]
    fn help_has_all_columns_and_fits() {
        for column in HEADER {
            assert!(
                HELP.lines()
                    .any(|line| line.starts_with(column) || line.starts_with("FROM, TO") && column == "TO"),
                "{column}"
            );
        }
        assert!(HELP.lines().count() <= 22 && HELP.lines().all(|line| line.chars().count() <= 80));
    }
}
