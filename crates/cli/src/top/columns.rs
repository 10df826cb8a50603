//! [`Fitting`]: the columns that fit into the width of a terminal, and how wide they are.
//!
//! Names are whole for as long as anything else can be left out, and rates are left out last.

use ratatui::text::Span;

use super::rates::{HEADER, Rated};
use crate::{
    ls::{processes, receiving_processes},
    rows::State,
};

const COLUMNS: usize = HEADER.len();

// Columns of the table.
const KIND: usize = 0;
const FROM: usize = 1;
const TO: usize = 2;
const MESSAGES: usize = 3;
const BYTES: usize = 4;
const RING: usize = 5;
const IN_USE: usize = 6;
const HIGH: usize = 7;
const WAITS: usize = 8;
const MISSED: usize = 9;
pub(super) const STATE: usize = 10;

/// The bar before the bytes in use.
const GAUGE: usize = 7;
/// The column `KIND` where there is little room.
const NARROW_KIND: usize = 12;
/// The least width of a name that is cut.
const LEAST_NAME: usize = 8;
/// The most width that is wanted for a number and for the two ends, with users and without: the names are foreign.
const MOST: [usize; 3] = [12, 48, 26];

/// Parts of the table that are left out where there is no room, in this order.
const STEPS: [Step; 9] = [
    Step::Column(HIGH),
    Step::Column(WAITS),
    Step::Users,
    Step::LongStates,
    Step::Column(RING),
    Step::LongKinds,
    Step::Column(IN_USE),
    Step::Column(MISSED),
    Step::Column(STATE),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Column(usize),
    Users,
    LongStates,
    LongKinds,
}

/// The widths that cells have needed so far. They only grow, so that columns stay where they are.
#[derive(Debug, Default)]
pub(super) struct Needs {
    widths: [usize; COLUMNS],
    /// Widths of both ends, without users.
    brief_ends: [usize; 2],
    brief_state: usize,
}

impl Needs {
    pub(super) fn see(&mut self, rows: &[Rated]) {
        for (need, title) in self.widths.iter_mut().zip(HEADER) {
            *need = (*need).max(title.len());
        }
        self.brief_ends = self.brief_ends.map(|need| need.max(HEADER[FROM].len()));
        self.brief_state = self.brief_state.max(HEADER[STATE].len());
        for rated in rows {
            let most = |column| match column {
                FROM | TO => MOST[1],
                KIND | STATE => usize::MAX,
                _ => MOST[0],
            };
            for (column, cell) in rated.cells().iter().enumerate() {
                self.widths[column] = self.widths[column].max(width(cell).min(most(column)));
            }
            for (need, cell) in self.brief_ends.iter_mut().zip(brief_ends(rated)) {
                *need = (*need).max(width(&cell).min(MOST[2]));
            }
            self.brief_state = self.brief_state.max(width(brief(rated.row.state)));
        }
    }
}

/// The columns that fit.
#[derive(Debug)]
pub(super) struct Fitting {
    /// Each with its width.
    pub(super) columns: Vec<(usize, usize)>,
    /// The places for a number beside its bar, where there is room for that.
    pub(super) beside_gauge: Option<usize>,
    has_users: bool,
    has_long_states: bool,
}

impl Fitting {
    pub(super) fn new(width: usize, needs: &Needs) -> Self {
        let mut widths = needs.widths;
        let mut columns: Vec<_> = (0..COLUMNS).collect();
        let (mut has_users, mut has_long_states) = (true, true);
        let total = |columns: &[usize], widths: &[usize; COLUMNS]| {
            (columns.iter().map(|column| widths[*column] + 1).sum::<usize>()).saturating_sub(1)
        };
        for step in STEPS {
            if total(&columns, &widths) <= width {
                break;
            }
            match step {
                Step::Column(least) => columns.retain(|column| *column != least),
                Step::Users => {
                    has_users = false;
                    [widths[FROM], widths[TO]] = needs.brief_ends;
                }
                Step::LongStates => {
                    has_long_states = false;
                    widths[STATE] = needs.brief_state;
                }
                Step::LongKinds => widths[KIND] = widths[KIND].min(NARROW_KIND),
            }
        }
        // Only names can be cut now, and if that is not enough, rates go.
        for rate in [BYTES, MESSAGES] {
            let others = total(&columns, &widths) - widths[FROM] - widths[TO];
            if others + 2 * LEAST_NAME > width {
                columns.retain(|column| *column != rate);
            }
        }
        let used = total(&columns, &widths);
        let has_gauge = columns.len() == COLUMNS && used + GAUGE <= width;
        let beside_gauge = has_gauge.then_some(widths[IN_USE]);
        if has_gauge {
            widths[IN_USE] += GAUGE;
        }
        let ends = (width + widths[FROM] + widths[TO]).saturating_sub(total(&columns, &widths));
        [widths[FROM], widths[TO]] = share(ends, [widths[FROM], widths[TO]]);
        let columns = columns.into_iter().map(|column| (column, widths[column])).collect();
        Self { columns, beside_gauge, has_users, has_long_states }
    }

    /// The text of each column of a row, which fits. `in_use` is that of its column.
    pub(super) fn cells(&self, rated: &Rated, in_use: Option<String>) -> Vec<(usize, String)> {
        let mut cells = rated.cells();
        if !self.has_users {
            [cells[FROM], cells[TO]] = brief_ends(rated);
        }
        if !self.has_long_states {
            brief(rated.row.state).clone_into(&mut cells[STATE]);
        }
        if let Some(in_use) = in_use {
            cells[IN_USE] = in_use;
        }
        self.columns
            .iter()
            .map(|(column, width)| (*column, cut(std::mem::take(&mut cells[*column]), *width)))
            .collect()
    }
}

/// Shares the places for both ends: each has what it needs, and half of what is left over or, where that is too little, half of all.
fn share(places: usize, [from, to]: [usize; 2]) -> [usize; 2] {
    let half = places / 2;
    let first = match places.checked_sub(from + to) {
        Some(spare) => from + spare / 2,
        None if from <= half => from,
        None if to <= half => places - to,
        None => half,
    };
    [first, places - first]
}

fn width(text: &str) -> usize {
    Span::raw(text).width()
}

/// A text that is not wider than it may be: where letters were left out is an ellipsis.
fn cut(mut text: String, most: usize) -> String {
    if width(&text) <= most {
        return text;
    }
    while width(&text) >= most.max(1) {
        text.pop();
    }
    if most > 0 {
        text.push('…');
    }
    text
}

/// Both ends without their users.
fn brief_ends(rated: &Rated) -> [String; 2] {
    [processes(&rated.row.from), receiving_processes(&rated.row)]
}

/// A state in few letters.
fn brief(state: State) -> &'static str {
    match state {
        State::HeldUp => "held up",
        State::WaitsForSpace => "waits",
        State::Awake => "awake",
        State::Asleep => "asleep",
        State::HoldsUp => "holds up",
        State::Forbidden => "forbidden",
        State::DoesNotAnswer => "no answer",
        State::Unreadable => "unreadable",
        State::NotTried => "not tried",
        State::Unknown => "–",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::top::rates::tests::rows;

    fn fitting(width: usize) -> Fitting {
        let mut needs = Needs::default();
        needs.see(&rows());
        Fitting::new(width, &needs)
    }

    fn names(width: usize) -> Vec<&'static str> {
        fitting(width).columns.into_iter().map(|(column, _)| HEADER[column]).collect()
    }

    #[test]
    fn the_least_important_columns_go_first_and_rates_last() {
        assert_eq!(names(160), HEADER);
        assert!(fitting(160).beside_gauge.is_some() && fitting(160).has_users);
        assert!(fitting(142).beside_gauge.is_none() && fitting(142).has_users);
        assert_eq!(names(80), ["KIND", "FROM", "TO", "MSG/S", "BYTES/S", "IN USE", "MISSED", "STATE"]);
        assert_eq!(names(72), ["KIND", "FROM", "TO", "MSG/S", "BYTES/S", "MISSED", "STATE"]);
        assert_eq!(names(70), ["KIND", "FROM", "TO", "MSG/S", "BYTES/S", "STATE"]);
        assert_eq!(names(48), ["KIND", "FROM", "TO", "MSG/S", "BYTES/S"]);
        assert_eq!(names(1), ["KIND", "FROM", "TO"]);
    }

    #[test]
    fn a_row_is_as_wide_as_the_terminal_and_names_are_whole_while_they_can_be() {
        for width in 31..250 {
            let fitting = fitting(width);
            let used: usize = fitting.columns.iter().map(|(_, width)| width + 1).sum::<usize>() - 1;
            assert_eq!(used, width);
            for row in rows() {
                for (column, cell) in fitting.cells(&row, None) {
                    let is_cut = cell.contains('…');
                    assert!(!is_cut || column == KIND || width < 62, "{width}: {cell}");
                    assert!(
                        Span::raw(&cell).width()
                            <= fitting.columns.iter().find(|one| one.0 == column).unwrap().1
                    );
                }
            }
        }
        let cells = |width| fitting(width).cells(&rows()[0], None);
        assert_eq!(cells(150)[FROM].1, "22688 camera (root)");
        assert_eq!(cells(80)[FROM].1, "22688 camera");
        assert_eq!(cells(50)[TO].1, "22690 alg…");
    }

    #[test]
    fn cut_texts_say_so() {
        for (text, most, shown) in [
            ("camera", 6, "camera"),
            ("camera", 5, "came…"),
            ("camera", 1, "…"),
            ("camera", 0, ""),
            ("日本語", 5, "日本…"),
            ("日本語", 4, "日…"),
        ] {
            assert_eq!(cut(text.to_owned(), most), shown);
        }
    }

    #[test]
    fn long_names_of_one_process_do_not_take_the_columns_of_others() {
        let mut all = rows();
        all.push(crate::top::rates::tests::named(&"x".repeat(90)));
        let mut needs = Needs::default();
        needs.see(&all);
        let fitting = Fitting::new(120, &needs);
        assert!(fitting.columns.iter().any(|(column, _)| *column == STATE));
        assert!(fitting.cells(&all[all.len() - 1], None)[FROM].1.ends_with("xx…"));
    }
}
