//! The tables of docs/protocol.md, for the tests that compare the code with them.

pub(crate) const PAGE: &str = include_str!("../../docs/protocol.md");

/// The cells of the rows of the table under the line that begins with `title`.
pub(crate) fn table(title: &str) -> Vec<Vec<String>> {
    let lines =
        PAGE.lines().skip_while(|line| !line.starts_with(title)).skip_while(|line| !line.starts_with("|---"));
    let rows = lines.skip(1).take_while(|line| line.starts_with('|'));
    rows.map(|row| row.split('|').map(|cell| cell.trim().replace('`', "")).collect()).collect()
}

/// Compares the fields of a structure with its table: offsets, names and sizes.
macro_rules! assert_documented {
    ($type:ident { $($field:ident),* $(,)? }) => {
        let whole: $type = zerocopy::FromZeros::new_zeroed();
        let code = [$((std::mem::offset_of!($type, $field), stringify!($field), size_of_val(&whole.$field))),*];
        let page: Vec<(usize, String, usize)> = $crate::protocol::page::table(concat!(stringify!($type), ", "))
            .iter()
            .map(|row| (row[1].parse().unwrap(), row[2].clone(), row[3].parse().unwrap()))
            .collect();
        assert_eq!(page.len(), code.len(), stringify!($type));
        for (page, code) in page.iter().zip(code) {
            assert_eq!((page.0, page.1.as_str(), page.2), code, stringify!($type));
        }
        let title = format!("{}, {} bytes", stringify!($type), size_of::<$type>());
        assert!($crate::protocol::page::PAGE.contains(&title), "{title}");
    };
}
pub(crate) use assert_documented;
