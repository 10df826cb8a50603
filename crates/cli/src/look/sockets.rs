//! [`Sockets`]: the paths at which a process waits for subscribers.
//!
//! `/proc/PID/fd` has the file numbers of its sockets, and `/proc/PID/net/unix` (`proc_net(5)`) names those that are bound, in the
//! network namespace of that process. No file of it is opened or looked at, as that could hang.
//!
//! UNTRUSTED: names. One with a line's end in it looks like another socket's line, so a number that is there twice has no name.

use std::{
    collections::{HashMap, HashSet},
    fs::{self, File},
    io::Read,
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

/// Most bytes of a table that are read. A longer one is of no use: what is missing could contradict what is there.
const MAX_TABLE: u64 = 16 << 20;

/// The time for looking at descriptors in one walk: of all processes, and of one user's.
const MAX_TIME: [Duration; 2] = [Duration::from_secs(1), Duration::from_millis(300)];

/// The flag of a socket that listens (`__SO_ACCEPTCON` of the kernel).
const LISTENS: u32 = 1 << 16;
/// `SOCK_SEQPACKET`.
const SEQPACKET: u32 = 5;

/// The sockets that listen, by their file number: their names. `None` for one that is contradicted.
type Table = HashMap<u64, Option<Vec<u8>>>;

/// Looks for sockets, within a time.
#[derive(Default)]
pub(super) struct Sockets {
    /// The table of each network namespace. `None` if it cannot be read, or is too long.
    tables: HashMap<PathBuf, Option<Rc<Table>>>,
    spent: Duration,
    spent_of_user: HashMap<u32, Duration>,
}

impl Sockets {
    /// The names of the sockets at which a process listens for subscribers or channels, in no order that says anything. Empty if the
    /// kernel does not show them to this user.
    pub(super) fn of(&mut self, pid: u32, uid: u32) -> Vec<String> {
        let of_user = self.spent_of_user.entry(uid).or_default();
        let left = MAX_TIME[0].saturating_sub(self.spent).min(MAX_TIME[1].saturating_sub(*of_user));
        let start = Instant::now();
        let found = Self::find(&mut self.tables, pid, start, left);
        let time = start.elapsed();
        self.spent += time;
        *of_user += time;
        found.unwrap_or_default()
    }

    /// `None` if anything is not known.
    fn find(
        tables: &mut HashMap<PathBuf, Option<Rc<Table>>>,
        pid: u32,
        start: Instant,
        left: Duration,
    ) -> Option<Vec<String>> {
        let (mut found, mut known) = (Vec::new(), HashSet::new());
        let mut table = None;
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).ok()? {
            if start.elapsed() >= left {
                return None;
            }
            // A descriptor can be closed meanwhile.
            let Ok(target) = entry.and_then(|entry| fs::read_link(entry.path())) else { continue };
            let Some(inode) = inode(target.to_str().unwrap_or_default()).filter(|inode| known.insert(*inode))
            else {
                continue;
            };
            let table = match &mut table {
                Some(table) => table,
                none => {
                    let namespace = fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
                    let read = || Some(Rc::new(parse(&read(pid)?)));
                    none.insert(tables.entry(namespace).or_insert_with(read).clone()?)
                }
            };
            // A socket without a name, as one that is contradicted, is as good as any other one.
            match table.get(&inode) {
                None => {}
                Some(None) => return None,
                Some(Some(name)) => found.push(String::from_utf8_lossy(name).into_owned()),
            }
        }
        found.sort();
        Some(found)
    }
}

/// The file number in `socket:[1234]`.
fn inode(target: &str) -> Option<u64> {
    target.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()
}

fn read(pid: u32) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    let file = File::open(format!("/proc/{pid}/net/unix")).ok()?;
    let read = file.take(MAX_TABLE).read_to_end(&mut text).ok()?;
    ((read as u64) < MAX_TABLE).then_some(text)
}

/// The sockets of a table that listen for connections of whole messages.
fn parse(text: &[u8]) -> Table {
    let mut table = Table::new();
    let mut counts: HashMap<u64, usize> = HashMap::new();
    let mut last = None;
    for line in text.split(|byte| *byte == b'\n').skip(1).filter(|line| !line.is_empty()) {
        let Some(socket) = Socket::parse(line) else {
            // The name of the one before goes on here.
            if let Some(name) = last.and_then(|inode| table.get_mut(&inode)) {
                *name = None;
            }
            continue;
        };
        *counts.entry(socket.inode).or_default() += 1;
        last = Some(socket.inode);
        if socket.listens && !socket.name.is_empty() {
            table.insert(socket.inode, Some(socket.name.to_vec()));
        }
    }
    for (inode, name) in &mut table {
        if counts.get(inode).is_some_and(|count| *count > 1) {
            *name = None;
        }
    }
    table
}

/// A line of the table: `Num: RefCount Protocol Flags Type St Inode Path`, with numbers in hexadecimal but for the last one.
struct Socket<'t> {
    listens: bool,
    inode: u64,
    name: &'t [u8],
}

impl<'t> Socket<'t> {
    fn parse(line: &'t [u8]) -> Option<Self> {
        let mut rest = line;
        let mut field = || {
            let start = rest.iter().position(|byte| *byte != b' ')?;
            let end =
                rest[start..].iter().position(|byte| *byte == b' ').map_or(rest.len(), |len| start + len);
            let field = std::str::from_utf8(&rest[start..end]).ok()?;
            rest = &rest[end..];
            Some(field)
        };
        field()?.strip_suffix(':')?;
        let [_references, _protocol, flags, kind, _state] =
            [field()?, field()?, field()?, field()?, field()?].map(|text| u32::from_str_radix(text, 16));
        let inode = field()?.parse().ok()?;
        let listens = flags.ok()? & LISTENS != 0 && kind.ok()? == SEQPACKET;
        Some(Self { listens, inode, name: rest.strip_prefix(b" ").unwrap_or_default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: &str = "Num       RefCount Protocol Flags    Type St Inode Path\n";
    const LISTENER: &str = "0000000062acacb5: 00000002 00000000 00010000 0005 01";

    fn names(lines: &str) -> Vec<(u64, Option<String>)> {
        let table = parse([HEADER, lines].concat().as_bytes());
        let mut names: Vec<_> = table
            .into_iter()
            .map(|(inode, name)| (inode, name.map(|name| String::from_utf8(name).unwrap())))
            .collect();
        names.sort();
        names
    }

    #[test]
    fn listening_sockets_are_found_with_names_of_all_kinds() {
        let text = format!(
            "{LISTENER} 1277053 /run/a b \n{LISTENER}    12 @name\n\
             0000000062acacb5: 00000003 00000000 00000000 0005 03 8 /connected\n\
             0000000062acacb5: 00000002 00000000 00010000 0001 01 9 /stream\n{LISTENER} 10\n"
        );
        assert_eq!(names(&text), [(12, Some("@name".to_owned())), (1_277_053, Some("/run/a b ".to_owned()))]);
        // The text may be cut anywhere.
        for end in 0..text.len() {
            parse(&[HEADER.as_bytes(), &text.as_bytes()[..end]].concat());
        }
    }

    #[test]
    fn names_that_look_like_lines_deceive_nobody() {
        let forged = format!("{LISTENER} 7 /mine\n{LISTENER} 8 @x\n{LISTENER} 7 /evil\n");
        assert_eq!(names(&forged), [(7, None), (8, Some("@x".to_owned()))]);
        let split = format!("{LISTENER} 7 /a\nb: c\n{LISTENER} 8 /c\n");
        assert_eq!(names(&split), [(7, None), (8, Some("/c".to_owned()))]);
        let not_listening = format!("{LISTENER} 7 /evil\n0: 00000003 00000000 00000000 0005 03 7 /mine\n");
        assert_eq!(names(&not_listening), [(7, None)]);
    }

    #[test]
    fn descriptors_of_other_kinds_are_no_sockets() {
        assert_eq!(inode("socket:[12]"), Some(12));
        for target in ["pipe:[12]", "/tmp/socket:[12]", "socket:[]", "anon_inode:[eventpoll]"] {
            assert_eq!(inode(target), None);
        }
    }
}
