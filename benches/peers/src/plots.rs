//! A picture of each work, as SVG: lines over the size where there are several sizes, else bars.

use std::path::Path;

use anyhow::{Context, Result};
use plotters::{
    coord::{
        Shift,
        ranged1d::{IntoSegmentedCoord, SegmentValue},
    },
    prelude::*,
};

use crate::{
    cell::{Transport, Work, Writer},
    report::{Summary, show},
    size,
};

const SIZE: (u32, u32) = (900, 560);
/// The width of the legend beside lines.
const LEGEND: u32 = 140;
const FONT: &str = "sans-serif";

/// Writes a picture of these cells, all of one work, to the directory, and another of those with a slow writer.
pub(crate) fn draw(summaries: &[Summary<'_>], directory: &Path) -> Result<()> {
    let (fast, slow): (Vec<_>, Vec<_>) =
        summaries.iter().partition(|summary| summary.cell.writer == Writer::Fast);
    draw_one(&fast, directory, "")?;
    draw_one(&slow, directory, "-slow")
}

fn draw_one(summaries: &[&Summary<'_>], directory: &Path, suffix: &str) -> Result<()> {
    let Some(work) = summaries.first().map(|summary| summary.cell.work) else { return Ok(()) };
    std::fs::create_dir_all(directory)?;
    let path = directory.join(format!("{work}{suffix}.svg"));
    let area = SVGBackend::new(&path, SIZE).into_drawing_area();
    let several = summaries.iter().any(|summary| summary.cell.size != summaries[0].cell.size);
    area.fill(&WHITE)?;
    if several { lines(&area, work, summaries) } else { bars(&area, work, summaries) }?;
    area.present().with_context(|| format!("writing {}", path.display()))
}

/// One colour for each family, so that its forms are seen to be one.
fn style(transport: Transport) -> (RGBColor, u32) {
    use Transport as T;
    match transport {
        T::LimitMemcpy => (RGBColor(190, 190, 190), 1),
        T::LimitSpin | T::LimitSleep => (RGBColor(140, 140, 140), 1),
        T::LimitHybrid => (BLACK, 2),
        T::Sealane => (RGBColor(200, 30, 30), 3),
        T::SealaneBatch => (RGBColor(150, 0, 60), 2),
        T::SealaneSpin | T::SealaneBlock => (RGBColor(240, 130, 120), 1),
        T::Iceoryx2 => (RGBColor(30, 90, 200), 2),
        T::Iceoryx2Event => (RGBColor(130, 170, 240), 1),
        T::ShmemIpcSpin => (RGBColor(20, 130, 60), 2),
        T::ShmemIpc => (RGBColor(120, 200, 140), 1),
        T::Seqpacket => (RGBColor(200, 130, 0), 2),
        T::SeqpacketPoll => (RGBColor(240, 190, 90), 1),
        T::Stream => (RGBColor(130, 80, 30), 1),
        T::Pipe => (RGBColor(180, 140, 100), 1),
        T::IpcChannel => (RGBColor(120, 40, 150), 1),
        T::IpcChannelShm => (RGBColor(190, 140, 210), 1),
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Room on both sides of the values, which are above zero.
fn bounds(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (low, high) = values
        .filter(|value| *value > 0.0)
        .fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)));
    if low > high { (0.1, 1.0) } else { (low / 1.5, high * 1.5) }
}

/// Both axes logarithmic; a point's whiskers are the lowest and the highest round.
fn lines(area: &Area<'_>, work: Work, summaries: &[&Summary<'_>]) -> Result<()> {
    let (low, high) = bounds(summaries.iter().flat_map(|summary| summary.spreads[0]));
    let (smallest, largest) = bounds(summaries.iter().map(|summary| summary.cell.size as f64));
    let figure = work.figures()[0].0;
    let (picture, legend) = area.split_horizontally(SIZE.0 - LEGEND);
    let mut chart = ChartBuilder::on(&picture)
        .caption(format!("{work}: {figure}, by payload"), (FONT, 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((smallest..largest).log_scale().base(2.0), (low..high).log_scale())?;
    chart
        .configure_mesh()
        .x_label_formatter(&|bytes| size::show(bytes.round() as usize))
        .y_label_formatter(&|value| show(*value))
        .y_desc(figure)
        .light_line_style(WHITE)
        .draw()?;
    let mut transports: Vec<Transport> = Vec::new();
    for summary in summaries {
        if !transports.contains(&summary.cell.transport) {
            transports.push(summary.cell.transport);
        }
    }
    for (row, transport) in (3..).zip(transports) {
        let (colour, width) = style(transport);
        let of_transport = summaries.iter().filter(|summary| summary.cell.transport == transport);
        let points: Vec<_> =
            of_transport.map(|summary| (summary.cell.size as f64, summary.spreads[0])).collect();
        let medians = points.iter().map(|(size, [_, median, _])| (*size, *median));
        chart.draw_series(LineSeries::new(medians, colour.stroke_width(width)).point_size(2))?;
        let whisker = |(size, [low, median, high]): &(f64, [f64; 3])| {
            ErrorBar::new_vertical(*size, *low, *median, *high, colour.stroke_width(1), 6)
        };
        chart.draw_series(points.iter().map(whisker))?;
        let y = 20 * row;
        legend.draw(&PathElement::new([(0, y), (20, y)], colour.stroke_width(width)))?;
        legend.draw(&Text::new(transport.to_string(), (26, y - 6), (FONT, 12)))?;
    }
    Ok(())
}

/// A bar for each transport, logarithmic, with the median beside it.
fn bars(area: &Area<'_>, work: Work, summaries: &[&Summary<'_>]) -> Result<()> {
    let (low, high) = bounds(summaries.iter().map(|summary| summary.spreads[0][1]));
    let (low, high) = (low / 2.0, high * 2.0);
    let figure = work.figures()[0].0;
    let names: Vec<String> =
        summaries.iter().rev().map(|summary| summary.cell.transport.to_string()).collect();
    let payload = size::show(summaries[0].cell.size);
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{work}, {payload}: {figure}"), (FONT, 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(120)
        .build_cartesian_2d((low..high).log_scale(), (0..summaries.len()).into_segmented())?;
    let name = |place: &SegmentValue<usize>| match place {
        SegmentValue::CenterOf(index) => names.get(*index).cloned().unwrap_or_default(),
        _ => String::new(),
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(summaries.len() + 1)
        .y_label_formatter(&name)
        .x_label_formatter(&|value| show(*value))
        .x_desc(figure)
        .light_line_style(WHITE)
        .draw()?;
    for (index, summary) in summaries.iter().rev().enumerate() {
        let (colour, _) = style(summary.cell.transport);
        let median = summary.spreads[0][1].max(low);
        let bottom = (low, SegmentValue::Exact(index));
        let mut bar = Rectangle::new([bottom, (median, SegmentValue::Exact(index + 1))], colour.filled());
        bar.set_margin(4, 4, 0, 0);
        chart.draw_series([bar])?;
        let place = (median * 1.05, SegmentValue::CenterOf(index));
        let text = Text::new(show(summary.spreads[0][1]), place, (FONT, 12));
        chart.draw_series([text])?;
    }
    Ok(())
}
