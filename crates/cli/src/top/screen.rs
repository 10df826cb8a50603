//! [`Screen`]: the terminal's picture, and what its keys do.

use std::time::Duration;

use ratatui::{
    Frame,
    crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout},
    style::{Color, Modifier, Style},
    text::{Line, Span},
    widgets::{Cell, Row, Table, TableState},
};

use super::{
    INTERVALS, Options,
    rates::{HEADER, Rated, Shown, Sort},
};
use crate::{
    output::bytes,
    rows::{Kind, State},
};

// Columns of the table.
const NUMBERS_FROM: usize = 3;
const NUMBERS_TO: usize = 9;
const IN_USE: usize = 6;
const STATE: usize = 10;

/// The consequence of an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Quit,
    /// Stop, as by `SIGTSTP`, until the shell continues it.
    Suspend,
    Draw,
    Nothing,
}

/// The user's settings, and the part of the table that is visible.
#[derive(Debug)]
pub(super) struct Screen {
    pub(super) interval: Duration,
    pub(super) sort: Sort,
    pub(super) reverse: bool,
    pub(super) filter: String,
    pub(super) paused: bool,
    /// The filter as it was before it is typed.
    typing: Option<String>,
    table: TableState,
    rows: usize,
}

impl Screen {
    pub(super) fn new(options: &Options) -> Self {
        Self {
            interval: options.interval,
            sort: options.sort,
            reverse: false,
            filter: options.filter.clone(),
            paused: false,
            typing: None,
            table: TableState::default(),
            rows: 0,
        }
    }

    pub(super) fn on_event(&mut self, event: &Event) -> Next {
        match event {
            Event::Key(key) if key.kind != KeyEventKind::Release => self.on_key(*key),
            Event::Resize(..) => Next::Draw,
            _ => Next::Nothing,
        }
    }

    fn on_key(&mut self, key: KeyEvent) -> Next {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Next::Quit,
                KeyCode::Char('z') => Next::Suspend,
                _ => Next::Nothing,
            };
        }
        if let Some(before) = &self.typing {
            match key.code {
                KeyCode::Enter => self.typing = None,
                KeyCode::Esc => {
                    self.filter = before.clone();
                    self.typing = None;
                }
                KeyCode::Backspace => drop(self.filter.pop()),
                KeyCode::Char(letter) => self.filter.push(letter),
                _ => return Next::Nothing,
            }
            return Next::Draw;
        }
        match key.code {
            KeyCode::Char('q') | KeyCode::Esc => return Next::Quit,
            KeyCode::Char('s') => self.sort = self.sort.next(),
            KeyCode::Char('r') => self.reverse = !self.reverse,
            KeyCode::Char('p' | ' ') => self.paused = !self.paused,
            KeyCode::Char('/') => self.typing = Some(self.filter.clone()),
            KeyCode::Char('+') => self.interval = (self.interval * 2).min(INTERVALS.1),
            KeyCode::Char('-') => self.interval = (self.interval / 2).max(INTERVALS.0),
            KeyCode::Down => self.scroll(1),
            KeyCode::Up => self.scroll(-1),
            KeyCode::PageDown => self.scroll(10),
            KeyCode::PageUp => self.scroll(-10),
            _ => return Next::Nothing,
        }
        Next::Draw
    }

    fn scroll(&mut self, lines: isize) {
        let at = self.table.offset().saturating_add_signed(lines);
        *self.table.offset_mut() = at.min(self.rows.saturating_sub(1));
    }

    pub(super) fn draw(&mut self, frame: &mut Frame<'_>, shown: &Shown) {
        self.rows = shown.rows.len();
        let notes = u16::try_from(shown.notes.len()).unwrap_or(0).min(3);
        let areas = Layout::vertical([
            Constraint::Length(1),
            Constraint::Min(1),
            Constraint::Length(notes),
            Constraint::Length(1),
        ])
        .split(frame.area());
        frame.render_widget(self.title(shown), areas[0]);
        frame.render_stateful_widget(table(shown, areas[1].width), areas[1], &mut self.table);
        let lines: Vec<_> = shown.notes.iter().map(|note| Line::from(note.as_str())).collect();
        frame.render_widget(ratatui::text::Text::from(lines).style(Style::new().fg(Color::Yellow)), areas[2]);
        frame.render_widget(self.footer(), areas[3]);
    }

    fn title(&self, shown: &Shown) -> Line<'static> {
        let Shown { channels, publishers, subscribers, .. } = shown;
        let mut spans = vec![
            Span::from("sealane").style(Style::new().add_modifier(Modifier::BOLD).fg(Color::Cyan)),
            Span::from(format!(
                "  channels {channels} · publishers {publishers} · subscribers {subscribers}"
            )),
            Span::from(format!(
                "  every {} · sorted by {}{}",
                humantime::format_duration(self.interval),
                self.sort.name(),
                if self.reverse { ", reversed" } else { "" }
            ))
            .style(Style::new().fg(Color::DarkGray)),
        ];
        if !self.filter.is_empty() && self.typing.is_none() {
            spans.push(Span::from(format!("  filter: {}", crate::rows::escape(&self.filter))));
        }
        if self.paused {
            spans.push(Span::from("  paused").style(Style::new().fg(Color::Yellow)));
        }
        Line::from(spans)
    }

    fn footer(&self) -> Line<'static> {
        if self.typing.is_some() {
            return Line::from(format!(
                "filter: {}▏ (Enter keeps it, Esc does not)",
                crate::rows::escape(&self.filter)
            ));
        }
        Line::from("q quit  s sort  r reverse  / filter  p pause  + - interval  ↑ ↓ scroll")
            .style(Style::new().fg(Color::DarkGray))
    }
}

/// The widths of the columns; those of `FROM` and `TO` are the least, and they share what is left.
const WIDTHS: [u16; 11] = [17, 13, 13, 7, 12, 10, 10, 10, 6, 7, 19];
/// The column `KIND` where there is little room.
const NARROW_KIND: u16 = 12;
/// The bar before the bytes in use.
const GAUGE: u16 = 7;
/// The columns that are left out where there is no room, in this order.
const LEAST: [usize; 6] = [7, 8, 9, 5, 4, 3];

/// The columns that fit into the width of a terminal.
struct Fitting {
    columns: Vec<usize>,
    kind: u16,
    has_gauge: bool,
}

impl Fitting {
    fn new(width: u16) -> Self {
        let mut columns: Vec<_> = (0..WIDTHS.len()).collect();
        let needed = |columns: &[usize]| columns.iter().map(|column| WIDTHS[*column] + 1).sum::<u16>() - 1;
        let mut kind = WIDTHS[0];
        for column in LEAST {
            if needed(&columns) <= width {
                break;
            }
            kind = NARROW_KIND;
            if needed(&columns) - (WIDTHS[0] - NARROW_KIND) <= width {
                break;
            }
            columns.retain(|other| *other != column);
        }
        let has_gauge = needed(&columns) + GAUGE <= width;
        Self { columns, kind, has_gauge }
    }

    fn constraints(&self) -> Vec<Constraint> {
        let width = |column: &usize| match *column {
            0 => Constraint::Length(self.kind),
            1 | 2 => Constraint::Fill(1),
            IN_USE if self.has_gauge => Constraint::Length(WIDTHS[IN_USE] + GAUGE),
            column => Constraint::Length(WIDTHS[column]),
        };
        self.columns.iter().map(width).collect()
    }
}

fn table(shown: &Shown, width: u16) -> Table<'static> {
    let fitting = Fitting::new(width);
    let titles = fitting.columns.iter().map(|column| match *column {
        NUMBERS_FROM..=NUMBERS_TO => Cell::from(Line::from(HEADER[*column]).right_aligned()),
        _ => Cell::from(HEADER[*column]),
    });
    let header = Row::new(titles).style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED));
    let mut capacity = None;
    let rows: Vec<_> = shown
        .rows
        .iter()
        .map(|rated| {
            if rated.row.kind == Kind::Publisher {
                capacity = rated.row.ring;
            }
            line(rated, rated.row.ring.or(capacity), &fitting)
        })
        .collect();
    Table::new(rows, fitting.constraints()).header(header).column_spacing(1)
}

fn line(rated: &Rated, capacity: Option<u64>, fitting: &Fitting) -> Row<'static> {
    let mut cells = rated.cells();
    if let (Some(fill), Some(capacity), true) = (rated.row.fill, capacity, fitting.has_gauge)
        && capacity > 0
    {
        cells[IN_USE] = gauge(fill, capacity);
    }
    let state = match rated.row.state {
        State::HeldUp | State::HoldsUp | State::DoesNotAnswer => Color::Red,
        State::WaitsForSpace | State::Forbidden | State::NotTried => Color::Yellow,
        State::Awake => Color::Green,
        State::Asleep | State::Unreadable | State::Unknown => Color::DarkGray,
    };
    let cells = fitting.columns.iter().map(|column| {
        let text = std::mem::take(&mut cells[*column]);
        match *column {
            NUMBERS_FROM..=NUMBERS_TO => Cell::from(Line::from(text).right_aligned()),
            STATE => Cell::from(text).style(Style::new().fg(state)),
            _ => Cell::from(text),
        }
    });
    let row = Row::new(cells.collect::<Vec<_>>());
    if rated.row.kind == Kind::Publisher { row.style(Style::new().add_modifier(Modifier::BOLD)) } else { row }
}

/// A bar of six places, and the bytes.
fn gauge(fill: u64, capacity: u64) -> String {
    const PLACES: u64 = 6;
    let marked = fill.min(capacity).saturating_mul(PLACES).div_ceil(capacity);
    let bar: String = (0..PLACES).map(|at| if at < marked { '█' } else { '·' }).collect();
    format!("{bar} {:>10}", bytes(Some(fill)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_important_columns_go_first() {
        let names = |width| Fitting::new(width).columns.into_iter().map(|at| HEADER[at]).collect::<Vec<_>>();
        assert_eq!(names(160), HEADER);
        assert!(Fitting::new(160).has_gauge && !Fitting::new(120).has_gauge);
        assert_eq!(names(80), ["KIND", "FROM", "TO", "MSG/S", "IN USE", "STATE"]);
        assert_eq!(names(1), ["KIND", "FROM", "TO", "IN USE", "STATE"]);
        for width in 79..200 {
            let fitting = Fitting::new(width);
            let needed: u16 = fitting.columns.iter().map(|column| WIDTHS[*column] + 1).sum::<u16>() - 1;
            assert!(needed - (WIDTHS[0] - fitting.kind) <= width, "{width}");
        }
    }
}
