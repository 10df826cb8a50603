//! [`Row`]: one line of `ls` and `top`, the messages from one side to another. Names are escaped here.

use std::{
    collections::{BTreeSet, HashMap},
    rc::Rc,
};

use serde::Serialize;
use uzers::UsersCache;

use crate::look::{Direction, Fan, Lane, Link, Page, Reading, Rights, Seen, Single, Unread, Unseen, Views};

/// A process in a row.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Program {
    pub(crate) pid: u32,
    /// The name of the process, which it can choose.
    pub(crate) name: String,
    pub(crate) user: String,
    pub(crate) uid: u32,
    pub(crate) exe: Option<String>,
}

/// The subject of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Kind {
    /// One direction of a channel.
    Channel,
    Publisher,
    /// A subscriber that is waited for.
    Gating,
    /// A subscriber that may be overrun.
    Overrunning,
    /// One side of a handshake.
    Handshake,
    /// A region whose peer is not there, or may not be looked at.
    Alone,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Channel => "channel",
            Self::Publisher => "publisher",
            Self::Gating => "└ waited for",
            Self::Overrunning => "└ may be overrun",
            Self::Handshake => "handshake",
            Self::Alone => "alone",
        }
    }
}

/// How a sender and a receiver stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum State {
    /// The sender waits for room that the receiver could give.
    HeldUp,
    /// The sender waits for space in its socket, or its event loop is armed for space.
    WaitsForSpace,
    Awake,
    Asleep,
    /// The subscriber keeps its publisher waiting.
    HoldsUp,
    Forbidden,
    DoesNotAnswer,
    Unreadable,
    NotTried,
    Unknown,
}

impl State {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::HeldUp => "held up by receiver",
            Self::WaitsForSpace => "waits for space",
            Self::Awake => "receiver awake",
            Self::Asleep => "receiver asleep",
            Self::HoldsUp => "holds publisher up",
            Self::Forbidden => "may not be read",
            Self::DoesNotAnswer => "does not answer",
            Self::Unreadable => "cannot be read",
            Self::NotTried => "not tried",
            Self::Unknown => "–",
        }
    }
}

impl From<Unread> for State {
    fn from(unread: Unread) -> Self {
        match unread {
            Unread::Forbidden => Self::Forbidden,
            Unread::DoesNotAnswer => Self::DoesNotAnswer,
            Unread::Unreadable => Self::Unreadable,
            Unread::NotTried => Self::NotTried,
        }
    }
}

/// Messages from one side to another. What no shared word says is `None`.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) kind: Kind,
    /// Rows of one channel, or of one publisher, have the same group.
    pub(crate) group: usize,
    pub(crate) from: Rc<[Program]>,
    pub(crate) to: Rc<[Program]>,
    /// The file of the sender's region, by which it is found again.
    pub(crate) inode: u64,
    pub(crate) messages: Option<u64>,
    /// Bytes committed to the ring, with headers and padding.
    pub(crate) bytes: Option<u64>,
    pub(crate) ring: Option<u64>,
    /// Bytes of the ring in use; for a subscriber, its lag.
    pub(crate) fill: Option<u64>,
    pub(crate) high_water: Option<u64>,
    pub(crate) waits: Option<u64>,
    pub(crate) missed: Option<u64>,
    pub(crate) state: State,
    /// The path at which subscribers join a publisher, if its process listens at one path only.
    pub(crate) path: Option<String>,
    /// The paths at which the process of a publisher listens: one of them is the publisher's, and no word tells which.
    pub(crate) paths: Vec<String>,
}

/// Everything that `ls` and `top` show.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Report {
    pub(crate) rows: Vec<Row>,
    pub(crate) unseen: Unseen,
    /// Regions whose page could not be read.
    pub(crate) unread: usize,
    #[serde(skip)]
    pub(crate) rights: Rights,
}

/// Makes rows, with a memory for the names of users.
#[derive(Default)]
pub(crate) struct Namer {
    users: UsersCache,
    names: HashMap<u32, String>,
}

impl Namer {
    pub(crate) fn report(&mut self, seen: &Seen) -> Report {
        let views = Views::new(seen);
        let mut rows = Vec::new();
        let mut group = 0;
        for link in &views.links {
            self.link(seen, link, group, &mut rows);
            group += 1;
        }
        for fan in &views.fans {
            self.fan(seen, fan, group, &mut rows);
            group += 1;
        }
        for single in &views.singles {
            rows.push(self.single(seen, single, group));
            group += 1;
        }
        let unread = seen.regions.iter().filter(|region| region.page.is_err()).count();
        Report { rows, unseen: seen.unseen, unread, rights: seen.rights }
    }

    fn programs(&mut self, seen: &Seen, pids: &[u32]) -> Rc<[Program]> {
        let known = pids.iter().filter_map(|pid| seen.processes.get(pid));
        known
            .map(|process| {
                let uid = process.uid;
                let users = &self.users;
                let user = self.names.entry(uid).or_insert_with(|| {
                    let user = uzers::Users::get_user_by_uid(users, uid);
                    user.map_or_else(|| uid.to_string(), |user| escape(&user.name().to_string_lossy()))
                });
                Program {
                    pid: process.pid,
                    name: escape(&process.comm),
                    user: user.clone(),
                    uid,
                    exe: process.exe.as_ref().map(|path| escape(&path.to_string_lossy())),
                }
            })
            .collect()
    }

    fn link(&mut self, seen: &Seen, link: &Link, group: usize, rows: &mut Vec<Row>) {
        let [one, two] = link.ends.each_ref().map(|end| self.programs(seen, &end.pids));
        for (direction, from, to) in [(link.directions[0], &one, &two), (link.directions[1], &two, &one)] {
            let Some(direction) = direction else { continue };
            let state = state_of(&direction);
            let fill = direction.fill;
            rows.push(Row { fill, ..row(Kind::Channel, group, from, to, Some(direction.sent), state) });
        }
    }

    fn fan(&mut self, seen: &Seen, fan: &Fan, group: usize, rows: &mut Vec<Row>) {
        let from = self.programs(seen, &fan.publisher.pids);
        let is_held_up = fan.lanes.iter().any(|lane| lane.holds_up);
        let state = match (is_held_up, fan.published.waits_now) {
            (true, _) => State::HeldUp,
            (false, true) => State::WaitsForSpace,
            (false, false) => State::Unknown,
        };
        let slowest = fan.lanes.iter().filter(|lane| lane.is_gating).filter_map(|lane| lane.lag).max();
        let published = row(Kind::Publisher, group, &from, &Rc::default(), Some(fan.published), state);
        let listens = fan.publisher.pids.iter().filter_map(|pid| seen.processes.get(pid));
        let paths: BTreeSet<_> =
            listens.flat_map(|process| &process.listens).map(|path| escape(path)).collect();
        let path = paths.first().filter(|_| paths.len() == 1).cloned();
        rows.push(Row { fill: slowest, path, paths: paths.into_iter().collect(), ..published });
        for lane in &fan.lanes {
            let to = self.programs(seen, &lane.end.pids);
            rows.push(lane_row(lane, group, &from, &to));
        }
    }

    fn single(&mut self, seen: &Seen, single: &Single, group: usize) -> Row {
        let from = self.programs(seen, &single.end.pids);
        let to = self.programs(seen, &single.readers);
        let (kind, state) = match &single.end.page {
            Ok(page) if page.owner().is_none() => (Kind::Handshake, State::Unknown),
            Ok(_) => (Kind::Alone, State::Unknown),
            Err(unread) => (Kind::Alone, State::from(*unread)),
        };
        let ring = single.end.page.as_ref().map_or(single.len, Page::capacity).min(single.len);
        Row { ring: Some(ring), inode: single.file.inode, ..row(kind, group, &from, &to, None, state) }
    }
}

/// A subscriber.
fn lane_row(lane: &Lane, group: usize, from: &Rc<[Program]>, to: &Rc<[Program]>) -> Row {
    let kind = if lane.is_gating { Kind::Gating } else { Kind::Overrunning };
    let state = match (lane.holds_up, lane.sleeps) {
        (true, _) => State::HoldsUp,
        (false, true) => State::Asleep,
        (false, false) => State::Awake,
    };
    let (inode, waits) = (lane.sent.file.inode, None);
    Row { fill: lane.lag, missed: Some(lane.missed), inode, waits, ..row(kind, group, from, to, None, state) }
}

fn row(
    kind: Kind,
    group: usize,
    from: &Rc<[Program]>,
    to: &Rc<[Program]>,
    sent: Option<Reading>,
    state: State,
) -> Row {
    Row {
        kind,
        group,
        from: Rc::clone(from),
        to: Rc::clone(to),
        inode: sent.map_or(0, |sent| sent.file.inode),
        messages: sent.map(|sent| sent.messages),
        bytes: sent.map(|sent| sent.bytes),
        ring: sent.map(|sent| sent.capacity),
        fill: None,
        high_water: sent.and_then(|sent| sent.high_water),
        waits: sent.map(|sent| sent.waits),
        missed: None,
        state,
        path: None,
        paths: Vec::new(),
    }
}

fn state_of(direction: &Direction) -> State {
    match (direction.held_up, direction.sent.waits_now, direction.receiver_sleeps) {
        (Some(true), ..) => State::HeldUp,
        (_, true, _) => State::WaitsForSpace,
        (_, _, Some(true)) => State::Asleep,
        (_, _, Some(false)) => State::Awake,
        (_, _, None) => State::Unknown,
    }
}

/// A name as it can be shown: what could move a cursor, change colours, turn the direction of writing or not be seen
/// is escaped.
pub(crate) fn escape(name: &str) -> String {
    let mut shown = String::with_capacity(name.len());
    for letter in name.chars() {
        let is_unseen = matches!(
            letter,
            '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}'
        );
        if letter.is_control() || is_unseen || letter == '\\' {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_reach_the_terminal_raw() {
        assert_eq!(escape("camera é 日本"), "camera é 日本");
        assert_eq!(escape("\\n\u{feff}\u{61c}"), "\\\\n\\u{feff}\\u{61c}");
        assert_eq!(escape("\x1b[2J\r\n\u{9b}m\u{202e}x\u{7f}"), "\\u{1b}[2J\\r\\n\\u{9b}m\\u{202e}x\\u{7f}");
    }
}
