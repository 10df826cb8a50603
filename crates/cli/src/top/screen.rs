//! [`Screen`]: the terminal's picture, and what its keys do.

use std::time::Duration;

use ratatui::{
    Frame,
    crossterm::event::{Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
    layout::{Constraint, Layout},
    style::{Color, Modifier, Style},
    text::{Line, Span, Text},
    widgets::{Cell, Row, Table, TableState},
};

use super::{
    INTERVALS, Options,
    columns::{Fitting, Needs, STATE},
    help::HELP,
    rates::{HEADER, Rated, Shown, Sort},
};
use crate::{
    output::bytes,
    rows::{Kind, State},
};

// Columns with numbers.
const NUMBERS_FROM: usize = 3;
const NUMBERS_TO: usize = 9;

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
    /// The help page is there in place of the table.
    has_help: bool,
    needs: Needs,
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
            has_help: false,
            needs: Needs::default(),
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
            KeyCode::Char('q') => return Next::Quit,
            KeyCode::Char('?') => self.has_help = !self.has_help,
            KeyCode::Esc if self.has_help => self.has_help = false,
            _ if self.has_help => return Next::Nothing,
            KeyCode::Esc if !self.filter.is_empty() => self.filter.clear(),
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
        if self.has_help {
            frame.render_widget(Text::from(HELP), areas[1]);
        } else if shown.rows.is_empty() {
            frame.render_widget(Text::from(shown.nothing()), areas[1]);
        } else {
            self.needs.see(&shown.rows);
            let fitting = Fitting::new(areas[1].width.into(), &self.needs);
            frame.render_stateful_widget(table(shown, &fitting), areas[1], &mut self.table);
        }
        let lines: Vec<_> = shown.notes.iter().map(|note| Line::from(note.as_str())).collect();
        frame.render_widget(Text::from(lines).style(Style::new().fg(Color::Yellow)), areas[2]);
        frame.render_widget(self.footer(), areas[3]);
    }

    fn title(&self, shown: &Shown) -> Line<'static> {
        let Shown { channels, publishers, subscribers, .. } = shown;
        let mut spans =
            vec![Span::from("sealane").style(Style::new().add_modifier(Modifier::BOLD).fg(Color::Cyan))];
        // What explains why rows are not there, or do not move, is cut last.
        if !self.filter.is_empty() && self.typing.is_none() {
            spans.push(Span::from(format!("  filter: {}", crate::rows::escape(&self.filter))));
        }
        if self.paused {
            spans.push(Span::from("  paused").style(Style::new().fg(Color::Yellow)));
        }
        spans.extend([
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
        ]);
        Line::from(spans)
    }

    fn footer(&self) -> Line<'static> {
        if self.typing.is_some() {
            return Line::from(format!(
                "filter: {}▏ (Enter keeps it, Esc does not)",
                crate::rows::escape(&self.filter)
            ));
        }
        let keys = if self.has_help {
            "q quit  Esc back"
        } else {
            "q quit  ? help  / filter  s sort  r reverse  p pause  + - interval  ↑ ↓ scroll"
        };
        Line::from(keys).style(Style::new().fg(Color::DarkGray))
    }
}

fn table(shown: &Shown, fitting: &Fitting) -> Table<'static> {
    let titles = fitting.columns.iter().map(|(column, _)| match *column {
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
            line(rated, rated.row.ring.or(capacity), fitting)
        })
        .collect();
    let widths = fitting
        .columns
        .iter()
        .map(|(_, width)| Constraint::Length(u16::try_from(*width).unwrap_or(u16::MAX)));
    Table::new(rows, widths).header(header).column_spacing(1)
}

fn line(rated: &Rated, capacity: Option<u64>, fitting: &Fitting) -> Row<'static> {
    let in_use = rated.row.fill.zip(capacity.filter(|capacity| *capacity > 0)).zip(fitting.beside_gauge);
    let state = match rated.row.state {
        State::HeldUp | State::HoldsUp | State::DoesNotAnswer => Color::Red,
        State::WaitsForSpace | State::Forbidden | State::NotTried => Color::Yellow,
        State::Awake => Color::Green,
        State::Asleep | State::Unreadable | State::Unknown => Color::DarkGray,
    };
    let cells = fitting.cells(rated, in_use.map(|((fill, capacity), places)| gauge(fill, capacity, places)));
    let cells = cells.into_iter().map(|(column, text)| match column {
        NUMBERS_FROM..=NUMBERS_TO => Cell::from(Line::from(text).right_aligned()),
        STATE => Cell::from(text).style(Style::new().fg(state)),
        _ => Cell::from(text),
    });
    let row = Row::new(cells.collect::<Vec<_>>());
    if rated.row.kind == Kind::Publisher { row.style(Style::new().add_modifier(Modifier::BOLD)) } else { row }
}

/// A bar of six places, and the bytes in so many places.
fn gauge(fill: u64, capacity: u64, places: usize) -> String {
    const PLACES: u64 = 6;
    let marked = fill.min(capacity).saturating_mul(PLACES).div_ceil(capacity);
    let bar: String = (0..PLACES).map(|at| if at < marked { '█' } else { '·' }).collect();
    format!("{bar} {:>places$}", bytes(Some(fill)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;
    use crate::top::rates::tests::shown;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        options: Options,
    }

    fn screen(arguments: &[&str]) -> Screen {
        Screen::new(&Command::parse_from([&["top"], arguments].concat()).options)
    }

    /// The lines that a terminal shows.
    fn lines(screen: &mut Screen, width: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, 24)).unwrap();
        let shown = shown(&screen.filter);
        terminal.draw(|frame| screen.draw(frame, &shown)).unwrap();
        let buffer = terminal.backend().buffer();
        let cells: Vec<_> = buffer.content().iter().map(ratatui::buffer::Cell::symbol).collect();
        cells.chunks(width.into()).map(|line| line.concat().trim_end().to_owned()).collect()
    }

    fn press(screen: &mut Screen, code: KeyCode) -> Next {
        screen.on_key(KeyEvent::new(code, KeyModifiers::NONE))
    }

    #[test]
    fn usual_widths_show_names_and_rates() {
        for (width, from) in [(150, "22688 camera (root)"), (80, "22688 camera "), (70, "22688 camera ")] {
            let lines = lines(&mut screen(&[]), width);
            for text in ["MSG/S", "BYTES/S", "STATE"] {
                assert!(lines[1].contains(text), "{width}: {}", lines[1]);
            }
            assert!(lines[2].contains(from) && lines[2].contains("22690 algorithm"), "{width}: {}", lines[2]);
            assert!(lines[2].contains("held up"), "{width}: {}", lines[2]);
        }
        let wide = lines(&mut screen(&[]), 160);
        assert!(wide[2].contains("██████ 2.9 MiB ") && !wide[2].contains('…'), "{}", wide[2]);
        let lines = lines(&mut screen(&[]), 50);
        assert!(lines[2].contains('…') && lines[2].contains("1.1 GiB/s"), "{}", lines[2]);
    }

    #[test]
    fn escape_clears_the_filter_and_quits_nothing() {
        let mut screen = screen(&["--filter", "camera"]);
        assert_eq!(press(&mut screen, KeyCode::Esc), Next::Draw);
        assert_eq!(screen.filter, "");
        assert_eq!(press(&mut screen, KeyCode::Esc), Next::Nothing);
        // In the line of the filter it leaves the filter as it was.
        screen.filter = "old".to_owned();
        for code in [KeyCode::Char('/'), KeyCode::Char('x'), KeyCode::Esc] {
            assert_eq!(press(&mut screen, code), Next::Draw);
        }
        assert_eq!(screen.filter, "old");
        assert_eq!(press(&mut screen, KeyCode::Char('q')), Next::Quit);
    }

    #[test]
    fn help_comes_and_goes() {
        let mut screen = screen(&[]);
        assert!(lines(&mut screen, 80)[23].contains("? help"));
        for back in ['?', '\x1b'] {
            assert_eq!(press(&mut screen, KeyCode::Char('?')), Next::Draw);
            let page = lines(&mut screen, 80);
            assert!(
                page.iter().any(|line| line.starts_with("STATE  ")) && page[23].contains("Esc"),
                "{page:#?}"
            );
            let code = if back == '?' { KeyCode::Char('?') } else { KeyCode::Esc };
            assert_eq!(press(&mut screen, code), Next::Draw);
            assert!(lines(&mut screen, 80)[2].contains("22688"));
        }
        press(&mut screen, KeyCode::Char('?'));
        assert_eq!(press(&mut screen, KeyCode::Char('q')), Next::Quit);
    }

    #[test]
    fn a_filter_that_matches_nothing_says_so_and_stays_visible() {
        let mut screen = screen(&["--filter", "preview"]);
        for width in [200, 80, 40] {
            let lines = lines(&mut screen, width);
            assert!(lines[0].contains("filter: preview"), "{width}: {}", lines[0]);
            assert!(lines.iter().any(|line| line.contains("no row contains \"preview\"")), "{lines:#?}");
        }
    }
}
