//! Shapes → PNG and SVG, with the font that is compiled in.
//!
//! The one rule: the same figure gives the same bytes, on every machine; no system font, no time stamp.

use std::sync::OnceLock;

use anyhow::{Context as _, Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{FontDesc, register_font};

use crate::report::draw::{Anchor, Ink, Shape, WIDTH, height, shapes};
use crate::report::figure::{Figure, color};

/// Named as the generic family, so that an SVG shown elsewhere falls back to whatever stands for it there.
const FONT: &str = "sans-serif";

/// The bitmap is painted this much larger and then averaged: plotters' own edges are rough.
const OVERSAMPLING: u32 = 2;

/// The figure as a PNG of 1600 × 1000; higher where panels are stacked.
pub fn png(figure: &Figure) -> Result<Vec<u8>> {
    let (width, height) = (WIDTH as u32 * OVERSAMPLING, height(figure) as u32 * OVERSAMPLING);
    let mut pixels = vec![255_u8; (width * height * 3) as usize];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        // plotters sets bitmap text a little too high.
        let lower = 0.1;
        paint(&area, &shapes(figure, &text_width), f64::from(OVERSAMPLING), lower)?;
    }
    encode(&halve(&pixels, width as usize), width / OVERSAMPLING, height / OVERSAMPLING)
}

/// The figure as an SVG.
pub fn svg(figure: &Figure) -> Result<String> {
    let mut text = String::new();
    {
        let area = SVGBackend::with_string(&mut text, (WIDTH as u32, height(figure) as u32)).into_drawing_area();
        area.fill(&rgb(Ink::Paper)).map_err(|error| anyhow!("cannot draw: {error}"))?;
        paint(&area, &shapes(figure, &text_width), 1.0, 0.0)?;
    }
    Ok(text)
}

/// Each pixel the mean of four. Most of a page is white, which is copied without a calculation: that is what keeps a
/// build without optimization usable.
fn halve(pixels: &[u8], width: usize) -> Vec<u8> {
    const BLOCK: usize = 96;
    const WHITE: [u8; BLOCK] = [255; BLOCK];
    let stride = width * 3;
    let mut out = Vec::with_capacity(pixels.len() / 4);
    for rows in pixels.chunks_exact(stride * 2) {
        let (upper, lower) = rows.split_at(stride);
        for (above, below) in upper.chunks(BLOCK).zip(lower.chunks(BLOCK)) {
            if *above == WHITE && *below == WHITE {
                out.extend_from_slice(&WHITE[..BLOCK / 2]);
            } else {
                halve_block(above, below, &mut out);
            }
        }
    }
    out
}

fn halve_block(above: &[u8], below: &[u8], out: &mut Vec<u8>) {
    for (above, below) in above.chunks_exact(6).zip(below.chunks_exact(6)) {
        for channel in 0..3 {
            let sum = u16::from(above[channel])
                + u16::from(above[channel + 3])
                + u16::from(below[channel])
                + u16::from(below[channel + 3]);
            out.push((sum / 4) as u8);
        }
    }
}

fn encode(pixels: &[u8], width: u32, height: u32) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Fast);
    encoder.write_header().and_then(|mut writer| writer.write_image_data(pixels)).context("cannot encode a PNG")?;
    Ok(bytes)
}

fn fonts() {
    static REGISTERED: OnceLock<()> = OnceLock::new();
    REGISTERED.get_or_init(|| {
        // A font that cannot be read shows as a failure of the first text drawn with it.
        let _ = register_font(FONT, FontStyle::Normal, dejavu::sans::regular());
        let _ = register_font(FONT, FontStyle::Bold, dejavu::sans::bold());
    });
}

fn font(size: f64, bold: bool) -> FontDesc<'static> {
    fonts();
    FontDesc::new(FontFamily::SansSerif, size, if bold { FontStyle::Bold } else { FontStyle::Normal })
}

fn text_width(size: f64, bold: bool, text: &str) -> f64 {
    font(size, bold).box_size(text).map_or(0.0, |(width, _)| f64::from(width))
}

fn rgb(ink: Ink) -> RGBColor {
    match ink {
        Ink::Ink => RGBColor(28, 28, 32),
        Ink::Muted => RGBColor(92, 92, 100),
        Ink::Grid => RGBColor(226, 226, 230),
        Ink::Paper => RGBColor(255, 255, 255),
        Ink::Curve(index) => {
            let (red, green, blue) = color(index);
            RGBColor(red, green, blue)
        }
        Ink::Pale(index) => {
            let (red, green, blue) = color(index);
            let paler = |part: u8| 255 - (255 - part) / 3;
            RGBColor(paler(red), paler(green), paler(blue))
        }
    }
}

type Area<B> = DrawingArea<B, plotters::coord::Shift>;

/// Paints on white, at `scale`, with texts lower by a share of their size.
fn paint<B: DrawingBackend>(area: &Area<B>, shapes: &[Shape], scale: f64, lower: f64) -> Result<()> {
    let failed = |error: DrawingAreaErrorKind<B::ErrorType>| anyhow!("cannot draw: {error}");
    for shape in shapes {
        paint_one(area, shape, scale, lower).map_err(failed)?;
    }
    area.present().map_err(failed)
}

/// A stretch of line as a polygon: the bitmap's own thick lines grow thin as they grow steep.
fn stroke(from: (f64, f64), to: (f64, f64), width: f64) -> [(f64, f64); 4] {
    let (x, y) = (to.0 - from.0, to.1 - from.1);
    let half = width / 2.0 / x.hypot(y).max(1e-9);
    let (x, y) = (-y * half, x * half);
    [(from.0 + x, from.1 + y), (to.0 + x, to.1 + y), (to.0 - x, to.1 - y), (from.0 - x, from.1 - y)]
}

fn paint_one<B: DrawingBackend>(
    area: &Area<B>,
    shape: &Shape,
    scale: f64,
    lower: f64,
) -> Result<(), DrawingAreaErrorKind<B::ErrorType>> {
    let pixel = |(x, y): (f64, f64)| ((x * scale).round() as i32, (y * scale).round() as i32);
    match shape {
        Shape::Path { points, ink, width } if scale > 1.0 => points.windows(2).try_for_each(|ends| {
            let stroke = stroke(ends[0], ends[1], f64::from(*width));
            area.draw(&Polygon::new(stroke.map(pixel).to_vec(), rgb(*ink).filled()))
        }),
        Shape::Path { points, ink, width } => {
            let style = rgb(*ink).stroke_width((f64::from(*width) * scale) as u32);
            area.draw(&PathElement::new(points.iter().map(|point| pixel(*point)).collect::<Vec<_>>(), style))
        }
        Shape::Area { points, ink, alpha } => {
            let style = rgb(*ink).mix(*alpha).filled();
            area.draw(&Polygon::new(points.iter().map(|point| pixel(*point)).collect::<Vec<_>>(), style))
        }
        Shape::Dot { at, radius, ink } => {
            area.draw(&Circle::new(pixel(*at), (radius * scale).round() as i32, rgb(*ink).filled()))
        }
        Shape::Text { at, text, size, bold, anchor, ink } => {
            let horizontal = match anchor {
                Anchor::Start => HPos::Left,
                Anchor::Middle => HPos::Center,
                Anchor::End => HPos::Right,
            };
            let style = font(size * scale, *bold).color(&rgb(*ink)).pos(Pos::new(horizontal, VPos::Center));
            area.draw(&Text::new(text.as_str(), pixel((at.0, at.1 + lower * size)), style))
        }
    }
}
