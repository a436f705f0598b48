//! Pictures: generated points beside the data, and the curves of a run.

use crate::error::{Error, Result};
use cudrift::diagnostics::Alignment;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use std::ops::Range;
use std::path::Path;
use std::sync::Once;

const WIDTH: u32 = 1200;
const HEIGHT: u32 = 640;
const INK: RGBColor = RGBColor(40, 44, 52);
const DATA: RGBColor = RGBColor(31, 119, 180);
const GENERATED: RGBColor = RGBColor(214, 84, 26);

type Area<'a> = DrawingArea<BitMapBackend<'a>, plotters::coord::Shift>;

/// What `draw` makes of a canvas, three bytes a pixel.
fn pixels(
    path: &Path,
    (width, height): (u32, u32),
    draw: impl FnOnce(&Area<'_>) -> std::result::Result<(), String>,
) -> Result<Vec<u8>> {
    static FONT: Once = Once::new();
    FONT.call_once(|| {
        // It fails only on a broken font, which the text would then show.
        let _ = register_font("sans-serif", FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT);
    });
    let mut pixels = vec![255u8; (width * height * 3) as usize];
    {
        let root = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        draw(&root).and_then(|()| root.present().map_err(|e| e.to_string())).map_err(|e| failed(path, e))?;
    }
    Ok(pixels)
}

fn failed(path: &Path, problem: impl std::fmt::Display) -> Error {
    Error::message(format!("cannot draw {}: {problem}", path.display()))
}

/// Encodes as PNG, animated where there are several frames, and writes the file atomically.
fn write(path: &Path, (width, height): (u32, u32), frames: &[Vec<u8>]) -> Result<()> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let encoded = || -> std::result::Result<(), png::EncodingError> {
        if frames.len() > 1 {
            encoder.set_animated(frames.len() as u32, 0)?;
            encoder.set_frame_delay(1, 12)?;
        }
        let mut writer = encoder.write_header()?;
        frames.iter().try_for_each(|pixels| writer.write_image_data(pixels))?;
        writer.finish()
    };
    encoded().map_err(|error| failed(path, error))?;
    Ok(cudrift::files::write_atomically(path, &bytes)?)
}

/// Draws one picture.
fn picture(path: &Path, draw: impl FnOnce(&Area<'_>) -> std::result::Result<(), String>) -> Result<()> {
    let size = (WIDTH, HEIGHT);
    write(path, size, &[pixels(path, size, draw)?])
}

/// The first two coordinates of `data` and `generated`, [n, D] each, side by side on the same axes.
///
/// With one coordinate the second axis is the rank within the set, that is, the distribution function.
pub(crate) fn samples(path: &Path, data: &[f32], generated: &[f32], dim: usize) -> Result<()> {
    let (data, generated) = (plane(data, dim), plane(generated, dim));
    let range = frame(&data);
    picture(path, |root| {
        for (panel, (title, points, color)) in
            root.split_evenly((1, 2)).iter().zip([("data", &data, DATA), ("generated", &generated, GENERATED)])
        {
            scatter(panel, &format!("{title}, {} points", points.len()), &range, &[(points, color, 2)])?;
        }
        Ok(())
    })
}

/// The first two coordinates of what is finite of a set [n, D]; with one coordinate the second is the rank.
fn plane(set: &[f32], dim: usize) -> Vec<(f64, f64)> {
    let mut points: Vec<_> = set
        .chunks_exact(dim)
        .map(|x| (f64::from(x[0]), f64::from(*x.get(1).unwrap_or(&0.0))))
        .filter(|(x, y)| x.is_finite() && y.is_finite())
        .collect();
    if dim == 1 {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        let count = points.len() as f64;
        for (rank, point) in points.iter_mut().enumerate() {
            point.1 = rank as f64 / count;
        }
    }
    points
}

/// Axes for these points with a margin: they set the frame; a stray generated point must not shrink the picture.
fn frame(points: &[(f64, f64)]) -> [Range<f64>; 2] {
    [|p: &(f64, f64)| p.0, |p: &(f64, f64)| p.1].map(|pick| {
        let low = points.iter().map(pick).fold(f64::INFINITY, f64::min);
        let high = points.iter().map(pick).fold(f64::NEG_INFINITY, f64::max);
        if !(low <= high) {
            return -1.0..1.0;
        }
        let margin = ((high - low) * 0.08).max(1e-6 * high.abs().max(1e-6));
        low - margin..high + margin
    })
}

/// What of a point set lies within axes: its points, color, and radius.
type Cloud<'a> = (&'a [(f64, f64)], RGBColor, u32);

/// Point sets on axes under a title.
fn scatter(
    panel: &Area<'_>,
    title: &str,
    [across, up]: &[Range<f64>; 2],
    clouds: &[Cloud<'_>],
) -> std::result::Result<(), String> {
    let mut chart = ChartBuilder::on(panel)
        .caption(title, ("sans-serif", 24).into_font().color(&INK))
        .margin(16)
        .x_label_area_size(32)
        .y_label_area_size(48)
        .build_cartesian_2d(across.clone(), up.clone())
        .map_err(|e| e.to_string())?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .label_style(("sans-serif", 14).into_font().color(&INK))
        .draw()
        .map_err(|e| e.to_string())?;
    for (points, color, radius) in clouds {
        let inside = points.iter().filter(|(x, y)| across.contains(x) && up.contains(y));
        chart
            .draw_series(inside.map(|p| Circle::new(*p, *radius, color.mix(0.6).filled())))
            .map_err(|e| e.to_string())?;
    }
    Ok(())
}

/// Points on their way over the data, [n, D] each, under a title each: all in one animated picture, six in another.
pub(crate) fn flow(animated: &Path, still: &Path, data: &[f32], frames: &[(String, &[f32])], dim: usize) -> Result<()> {
    const SIDE: (u32, u32) = (520, 520);
    let data = plane(data, dim);
    let frames: Vec<_> = frames.iter().map(|(title, points)| (title, plane(points, dim))).collect();
    // The way there is to be seen as well.
    let all: Vec<_> = data.iter().chain(&frames[0].1).copied().collect();
    let range = frame(&all);
    let one = |(title, points): &(&String, Vec<_>)| {
        pixels(animated, SIDE, |root| scatter(root, title, &range, &[(&data, DATA, 1), (points, GENERATED, 2)]))
    };
    let pictures: Vec<Vec<u8>> = frames.iter().map(one).collect::<Result<_>>()?;
    write(animated, SIDE, &pictures)?;
    picture(still, |root| {
        for (k, panel) in root.split_evenly((2, 3)).iter().enumerate() {
            let (title, points) = &frames[k * (frames.len() - 1) / 5];
            scatter(panel, title, &range, &[(&data, DATA, 1), (points, GENERATED, 2)])?;
        }
        Ok(())
    })
}

/// Two sets of images [n, height, width], each with a title and the class of each image, side by side: a row for each of
/// up to ten classes, or ten rows without. The range of the first set is black to white.
pub(crate) fn images(
    path: &Path,
    [height, width]: [usize; 2],
    classes: usize,
    sets: [(&str, &[f32], &[usize]); 2],
) -> Result<()> {
    /// Images of a class in a row, and rows.
    const ACROSS: usize = 10;
    const ROWS: usize = 10;
    const TOP: usize = 48;
    const MARGIN: usize = 16;
    let range = |(low, high): (f32, f32), v: &f32| (low.min(*v), high.max(*v));
    let (low, high) = sets[0].1.iter().fold((f32::INFINITY, f32::NEG_INFINITY), range);
    let shade = |v: f32| ((v - low) / (high - low).max(f32::MIN_POSITIVE) * 255.0).clamp(0.0, 255.0) as u8;
    let pick = |row: usize, labels: &[usize], count: usize| -> Vec<usize> {
        match classes {
            0 => (row * ACROSS..(row + 1) * ACROSS).filter(|k| *k < count).collect(),
            _ => (0..count).filter(|k| labels[*k] == row).take(ACROSS).collect(),
        }
    };
    let rows = if classes == 0 { ROWS } else { classes.min(ROWS) };
    let pixels = height * width;
    picture(path, |root| {
        for (panel, (title, set, labels)) in root.split_evenly((1, 2)).iter().zip(sets) {
            panel
                .draw(&Text::new(title, (MARGIN as i32, MARGIN as i32), ("sans-serif", 24).into_font().color(&INK)))
                .map_err(|e| e.to_string())?;
            let room = [panel.dim_in_pixel().0 as usize - MARGIN, panel.dim_in_pixel().1 as usize - MARGIN];
            // Pixels of the picture for one of an image; of large images what fits is shown.
            let across = (room[0] - MARGIN) / ((width + 1) * ACROSS);
            let size = across.min((room[1] - TOP) / ((height + 1) * rows)).max(1);
            for row in 0..rows {
                for (column, k) in pick(row, labels, set.len() / pixels).into_iter().enumerate() {
                    for (at, value) in set[k * pixels..][..pixels].iter().enumerate() {
                        let x = MARGIN + (column * (width + 1) + at % width) * size;
                        let y = TOP + (row * (height + 1) + at / width) * size;
                        if x + size > room[0] || y + size > room[1] {
                            continue;
                        }
                        let (x, y, size, v) = (x as i32, y as i32, size as i32, shade(*value));
                        let square = Rectangle::new([(x, y), (x + size, y + size)], RGBColor(v, v, v).filled());
                        panel.draw(&square).map_err(|e| e.to_string())?;
                    }
                }
            }
        }
        Ok(())
    })
}

/// One logged step.
pub(crate) struct Point {
    pub(crate) step: u64,
    pub(crate) loss: f64,
    pub(crate) loss_ema: f64,
    pub(crate) swd1: f64,
}

/// Loss on a logarithmic axis, and the sliced Wasserstein distance, over steps.
pub(crate) fn loss(path: &Path, points: &[Point]) -> Result<()> {
    let last = points.last().map_or(1, |p| p.step).max(2) as f64;
    let positive = |v: f64| v.is_finite() && v > 0.0;
    let range = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) =
            values.filter(|v| positive(*v)).fold((f64::INFINITY, 0.0f64), |(low, high), v| (low.min(v), high.max(v)));
        if low <= high { (low, high) } else { (1e-6, 1.0) }
    };
    picture(path, |root| {
        let panels = root.split_evenly((1, 2));
        let label = || ("sans-serif", 14).into_font().color(&INK);
        let title = || ("sans-serif", 24).into_font().color(&INK);

        let (low, high) = range(&mut points.iter().flat_map(|p| [p.loss, p.loss_ema]));
        let mut chart = ChartBuilder::on(&panels[0])
            .caption("drift loss", title())
            .margin(24)
            .x_label_area_size(40)
            .y_label_area_size(72)
            .build_cartesian_2d(0.0..last, (low * 0.7..high * 1.4).log_scale())
            .map_err(|e| e.to_string())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("step")
            .x_label_formatter(&|v| format!("{v:.0}"))
            .label_style(label())
            .y_label_formatter(&|v| format!("{v:.0e}"))
            .draw()
            .map_err(|e| e.to_string())?;
        for (name, pick, color) in [
            ("each step", (|p: &Point| p.loss) as fn(&Point) -> f64, DATA.mix(0.4)),
            ("average (0.96)", |p: &Point| p.loss_ema, GENERATED.mix(1.0)),
        ] {
            let line = points.iter().map(|p| (p.step as f64, pick(p))).filter(|(_, v)| positive(*v));
            named_line(&mut chart, name, line, color)?;
        }
        legend(&mut chart, 14)?;

        let (_, high) = range(&mut points.iter().map(|p| p.swd1));
        let mut chart = ChartBuilder::on(&panels[1])
            .caption("sliced Wasserstein distance to the data", title())
            .margin(24)
            .x_label_area_size(40)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..last, 0.0..high * 1.1)
            .map_err(|e| e.to_string())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .x_desc("step")
            .x_label_formatter(&|v| format!("{v:.0}"))
            .label_style(label())
            .draw()
            .map_err(|e| e.to_string())?;
        let line = points.iter().map(|p| (p.step as f64, p.swd1)).filter(|(_, v)| v.is_finite());
        chart.draw_series(LineSeries::new(line, GENERATED.stroke_width(2))).map_err(|e| e.to_string())?;
        Ok(())
    })
}

/// A line through points, which a legend names.
fn named_line<'a, 'b: 'a, X, Y>(
    chart: &mut ChartContext<'a, BitMapBackend<'b>, Cartesian2d<X, Y>>,
    name: &str,
    points: impl Iterator<Item = (f64, f64)>,
    color: RGBAColor,
) -> std::result::Result<(), String>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    chart
        .draw_series(LineSeries::new(points, color.stroke_width(2)))
        .map_err(|e| e.to_string())?
        .label(name)
        .legend(move |(x, y)| PathElement::new([(x, y), (x + 24, y)], color.stroke_width(2)));
    Ok(())
}

/// The names of a chart's lines.
fn legend<'a, 'b: 'a, X, Y>(
    chart: &mut ChartContext<'a, BitMapBackend<'b>, Cartesian2d<X, Y>>,
    size: u32,
) -> std::result::Result<(), String>
where
    X: Ranged<ValueType = f64>,
    Y: Ranged<ValueType = f64>,
{
    chart
        .configure_series_labels()
        .label_font(("sans-serif", size).into_font().color(&INK))
        .background_style(WHITE.mix(0.9))
        .border_style(INK.mix(0.3))
        .draw()
        .map_err(|e| e.to_string())
}

/// A quantity's name, where it is found, and its colour.
type Curve = (&'static str, fn(&Alignment) -> f64, RGBColor);

/// What `cudrift diagnose` measures, over the number of dimensions: errors, their share of the drift, the angle, and the
/// ratios that the theory puts at 1.
pub(crate) fn alignment(path: &Path, rows: &[(usize, Alignment)]) -> Result<()> {
    let panels: [(&str, bool, &[Curve]); 4] = [
        (
            "absolute error, and residual",
            true,
            &[("absolute", |a| a.absolute, GENERATED), ("residual", |a| a.residual, DATA)],
        ),
        ("error relative to the drift", true, &[("relative", |a| a.relative, GENERATED)]),
        ("1 - cosine", true, &[("1 - cosine", |a| 1.0 - a.cosine, GENERATED)]),
        (
            "ratios",
            false,
            &[
                ("alpha p / alpha q", |a| a.alpha[0] / a.alpha[1], DATA),
                ("C* / C", |a| a.c_star / a.c_theory, GENERATED),
            ],
        ),
    ];
    let dims = || rows.iter().map(|(dim, _)| *dim as f64);
    let across = dims().fold(f64::INFINITY, f64::min) * 0.8..dims().fold(0.0, f64::max) * 1.25;
    picture(path, |root| {
        for (panel, (title, logarithmic, curves)) in root.split_evenly((2, 2)).iter().zip(panels) {
            let shown = |value: f64| value.is_finite() && (value > 0.0 || !logarithmic);
            let values = curves.iter().flat_map(|(_, pick, _)| rows.iter().map(|(_, row)| pick(row)));
            let (low, high) = values
                .filter(|value| shown(*value))
                .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
            let range = match low <= high {
                true if logarithmic => low * 0.5..high * 2.0,
                true => low.min(0.9) - 0.1..high.max(1.1) + 0.1,
                false => 0.1..10.0,
            };
            let mut builder = ChartBuilder::on(panel);
            builder
                .caption(title, ("sans-serif", 20).into_font().color(&INK))
                .margin(12)
                .x_label_area_size(36)
                .y_label_area_size(64);
            let across = across.clone().log_scale();
            if logarithmic {
                let chart = builder.build_cartesian_2d(across, range.log_scale()).map_err(|e| e.to_string())?;
                over_dimensions(chart, curves, rows, shown, |v| format!("{v:.0e}"))?;
            } else {
                let chart = builder.build_cartesian_2d(across, range).map_err(|e| e.to_string())?;
                over_dimensions(chart, curves, rows, shown, |v| format!("{v:.1}"))?;
            }
        }
        Ok(())
    })
}

/// Draws the curves, and marks the dimensions that were measured.
fn over_dimensions<'a, 'b: 'a, X, Y>(
    mut chart: ChartContext<'a, BitMapBackend<'b>, Cartesian2d<X, Y>>,
    curves: &[Curve],
    rows: &[(usize, Alignment)],
    shown: impl Fn(f64) -> bool,
    format: fn(f64) -> String,
) -> std::result::Result<(), String>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let label = || ("sans-serif", 13).into_font().color(&INK);
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("D")
        .x_label_formatter(&|v| format!("{v:.0}"))
        .y_label_formatter(&|v| format(*v))
        .label_style(label())
        .draw()
        .map_err(|e| e.to_string())?;
    for (name, pick, color) in curves {
        let points = || rows.iter().map(|(dim, row)| (*dim as f64, pick(row))).filter(|(_, v)| shown(*v));
        named_line(&mut chart, name, points(), color.mix(1.0))?;
        chart.draw_series(points().map(|p| Circle::new(p, 3, color.filled()))).map_err(|e| e.to_string())?;
    }
    if curves.len() > 1 { legend(&mut chart, 13) } else { Ok(()) }
}
