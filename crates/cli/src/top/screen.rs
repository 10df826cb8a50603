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

/// What follows an event.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Quit,
    Draw,
    Nothing,
}

/// What the user has set, and the part of the table that is visible.
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
            return if key.code == KeyCode::Char('c') { Next::Quit } else { Next::Nothing };
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
        frame.render_stateful_widget(table(shown), areas[1], &mut self.table);
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

fn table(shown: &Shown) -> Table<'static> {
    let titles = HEADER.into_iter().enumerate().map(|(column, title)| match column {
        NUMBERS_FROM..=NUMBERS_TO => Cell::from(Line::from(title).right_aligned()),
        _ => Cell::from(title),
    });
    let header = Row::new(titles).style(Style::new().add_modifier(Modifier::BOLD | Modifier::UNDERLINED));
    let widths = [
        Constraint::Length(17),
        Constraint::Fill(3),
        Constraint::Fill(3),
        Constraint::Length(7),
        Constraint::Length(12),
        Constraint::Length(10),
        Constraint::Length(17),
        Constraint::Length(10),
        Constraint::Length(6),
        Constraint::Length(7),
        Constraint::Length(19),
    ];
    let mut capacity = None;
    let rows: Vec<_> = shown
        .rows
        .iter()
        .map(|rated| {
            if rated.row.kind == Kind::Publisher {
                capacity = rated.row.ring;
            }
            line(rated, rated.row.ring.or(capacity))
        })
        .collect();
    Table::new(rows, widths).header(header).column_spacing(1)
}

fn line(rated: &Rated, capacity: Option<u64>) -> Row<'static> {
    let cells = rated.cells();
    let gauge = match (rated.row.fill, capacity) {
        (Some(fill), Some(capacity)) if capacity > 0 => gauge(fill, capacity),
        (fill, _) => bytes(fill),
    };
    let state = match rated.row.state {
        State::HeldUp | State::HoldsUp | State::DoesNotAnswer => Color::Red,
        State::WaitsForSpace | State::Forbidden | State::NotTried => Color::Yellow,
        State::Awake => Color::Green,
        State::Asleep | State::Unreadable | State::Unknown => Color::DarkGray,
    };
    let cells = cells.into_iter().enumerate().map(|(column, text)| match column {
        IN_USE => Cell::from(Line::from(gauge.clone()).right_aligned()),
        NUMBERS_FROM..=NUMBERS_TO => Cell::from(Line::from(text).right_aligned()),
        STATE => Cell::from(text).style(Style::new().fg(state)),
        _ => Cell::from(text),
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
