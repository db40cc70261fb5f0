//! Tests of whole charts, parsed from their SVG.

use std::collections::BTreeMap;

use roxmltree::{Document, Node};

use super::canvas::color;
use super::text::{PLAIN, Text};
use super::{CurveOptions, Table, TableOptions, TableRows, bars_or_lines, curves, write_svg};
use crate::{EVAL, Error, Record, TRAIN};

fn record(step: u64, kind: &str, values: &[(&str, f64)]) -> Record {
    let values: BTreeMap<String, f64> = values.iter().map(|&(name, value)| (name.into(), value)).collect();
    Record { step, kind: kind.into(), values }
}

/// A typical run: falling losses with noise, a warm-up, and occasional evaluations.
fn run(steps: u64) -> Vec<Record> {
    let mut records = Vec::new();
    for step in 1..=steps {
        let at = step as f64 / steps as f64;
        let noise = ((step * 7919) % 1009) as f64 / 1009.0 - 0.5;
        let loss = 0.9 + 4.0 * (-12.0 * at).exp() + 0.1 * noise;
        records.push(record(
            step,
            TRAIN,
            &[
                ("total", loss + 0.3),
                ("cross_entropy", loss),
                ("boundary", 0.3 * (1.0 - at) + 0.02 * noise.abs()),
                ("encoder", 0.001 + 0.1 * (-20.0 * at).exp()),
                ("bits_per_byte", 1.4 * loss),
                ("boundary_accuracy", 0.97 + 0.02 * at + 0.01 * noise),
                ("boundary_precision", 0.95 + 0.03 * at + 0.01 * noise),
                ("boundary_recall", 0.93 + 0.05 * at + 0.01 * noise),
                ("bytes_per_patch", 4.4 + 0.2 * noise),
                ("learning_rate", 3e-4 * (at * 10.0).min(1.0)),
                ("gradient_norm", 1.0 + 30.0 * (-30.0 * at).exp() + noise.abs()),
            ],
        ));
        if step % (steps / 10).max(1) == 0 {
            records.push(record(step, EVAL, &[("bits_per_byte", 1.4 * loss + 0.05), ("cross_entropy", loss)]));
        }
    }
    records
}

fn number(node: Node, name: &str) -> f64 {
    node.attribute(name).unwrap().parse().unwrap()
}

/// Bounding boxes of all texts, by their estimated width.
fn boxes<'a>(document: &'a Document) -> Vec<([f64; 4], &'a str)> {
    let texts = document.descendants().filter(|node| node.has_tag_name("text"));
    let bounds = |node: Node<'a, 'a>| {
        let text = node.text().unwrap().trim_matches('\n');
        let (x, y, size) = (number(node, "x"), number(node, "y"), number(node, "font-size"));
        let bold = node.attribute("font-weight") == Some("bold");
        let width = Text { size, bold, ..PLAIN }.width(text);
        let left = match node.attribute("text-anchor").unwrap() {
            "start" => x,
            "middle" => x - width / 2.0,
            _ => x - width,
        };
        // Tick labels below an axis hang from their position; other texts are vertically centered there.
        let top = if node.attribute("dy") == Some("0.76em") { y } else { y - size / 2.0 };
        ([left, top, left + width, top + size], text)
    };
    texts.map(bounds).collect()
}

/// Parses a chart and checks what holds for every chart: it is valid XML, nothing leaves the page, and no text covers
/// another.
fn checked(svg: &str) -> Document<'_> {
    let document = Document::parse(svg).unwrap();
    let root = document.root_element();
    assert!(root.has_tag_name(("http://www.w3.org/2000/svg", "svg")));
    let view: Vec<f64> = root.attribute("viewBox").unwrap().split(' ').map(|n| n.parse().unwrap()).collect();
    let (width, height) = (view[2], view[3]);
    let ratio = number(root, "width") / number(root, "height");
    assert!((ratio - width / height).abs() < 0.01);
    for node in document.descendants().filter(|node| node.has_tag_name("polyline")) {
        for point in node.attribute("points").unwrap().split_whitespace() {
            let (x, y) = point.split_once(',').unwrap();
            let (x, y): (f64, f64) = (x.parse().unwrap(), y.parse().unwrap());
            assert!((0.0..=width).contains(&x) && (0.0..=height).contains(&y), "{point}");
        }
    }
    let boxes = boxes(&document);
    for (index, (a, text)) in boxes.iter().enumerate() {
        assert!(a[0] >= 0.0 && a[1] >= 0.0 && a[2] <= width && a[3] <= height, "{text:?} leaves the page: {a:?}");
        for (b, other) in &boxes[..index] {
            let apart = a[0] >= b[2] || b[0] >= a[2] || a[1] >= b[3] || b[1] >= a[3];
            assert!(apart, "{text:?} covers {other:?}");
        }
    }
    document
}

fn texts(document: &Document) -> Vec<String> {
    boxes(document).into_iter().map(|(_, text)| text.to_owned()).collect()
}

/// Numbers of points of all polylines in the full color of the series with this index.
fn lines(document: &Document, index: usize) -> Vec<usize> {
    let color = color(index);
    let stroke = format!("#{:02X}{:02X}{:02X}", color.0, color.1, color.2);
    let is_line = |node: &Node| {
        node.has_tag_name("polyline")
            && node.attribute("stroke") == Some(&stroke)
            && node.attribute("opacity") == Some("1")
    };
    let points = |node: Node| node.attribute("points").unwrap().split_whitespace().count();
    // Legend swatches are lines of two points.
    document.descendants().filter(is_line).map(points).filter(|count| *count != 2).collect()
}

#[test]
fn a_run_has_all_its_panels() {
    let records = run(300);
    for (width, columns) in [(360, 1), (760, 1), (1100, 2), (1600, 3), (9000, 9)] {
        let options = CurveOptions { title: "Stage 1".into(), width, columns, ..CurveOptions::default() };
        let svg = curves(&records, &options).unwrap();
        let texts = texts(&checked(&svg));
        let panels =
            ["Stage 1", "Losses", "Bits per byte", "Boundaries", "Bytes per patch", "Learning rate", "Gradient norm"];
        for panel in panels {
            assert!(texts.iter().any(|text| text.starts_with(panel)), "{panel} is not in {texts:?}");
        }
        assert!(texts.iter().any(|text| text == "cross entropy (eval)"), "{texts:?}");
        assert_eq!(svg, curves(&records, &options).unwrap(), "the same records give the same chart");
    }
}

#[test]
fn little_or_nothing_can_be_drawn() {
    let nothing = curves(&[], &CurveOptions::default()).unwrap();
    assert_eq!(texts(&checked(&nothing)).len(), 1);
    let other = curves(&[record(3, "note", &[("seconds", 1.0)])], &CurveOptions::default()).unwrap();
    assert_eq!(other, nothing);
    let one = curves(&[record(3, TRAIN, &[("total", 2.5)])], &CurveOptions::default()).unwrap();
    let one = checked(&one);
    assert_eq!(one.descendants().filter(|node| node.has_tag_name("circle")).count(), 1);
    assert!(texts(&one).contains(&"Losses".to_owned()));
}

#[test]
fn any_number_and_any_name_can_be_drawn() {
    let numbers = [f64::NAN, f64::INFINITY, f64::MAX, f64::MIN, f64::MIN_POSITIVE, 5e-324, 1e99, -1e-99, 0.0, 1.0];
    let name = "a<b>&\"'\u{0}\u{1b}\u{ffff}\n_bits_per_byte";
    for (first, second) in numbers.iter().flat_map(|a| numbers.iter().map(move |b| (*a, *b))) {
        let records: Vec<Record> = [(0, first), (u64::MAX, second), (7, first), (7, second)]
            .map(|(step, value)| {
                record(step, "<&>", &[("total", value), (name, value), ("learning_rate", value), ("lr", second)])
            })
            .into();
        let options = CurveOptions { title: name.into(), smoothing: Some(usize::MAX), ..CurveOptions::default() };
        checked(&curves(&records, &options).unwrap());
        let names = vec![name.to_owned(), String::new()];
        let rows = vec![(name.to_owned(), vec![first, second]), (String::new(), vec![second, second])];
        let bars = Table { row_name: name.into(), value_name: name.into(), names, rows: TableRows::Bars(rows) };
        checked(&bars_or_lines(&bars, &TableOptions { title: name.into(), width: 0 }).unwrap());
        let rows = vec![(first, vec![first, second]), (second, vec![second, first]), (0.0, vec![1.0, 2.0])];
        let lines = Table { rows: TableRows::Lines(rows), ..bars };
        checked(&bars_or_lines(&lines, &TableOptions::default()).unwrap());
    }
}

#[test]
fn values_that_are_missing_are_gaps() {
    let value = |step| if step == 20 || step == 21 { f64::NAN } else { 1.0 + step as f64 };
    let records: Vec<Record> = (0..50).map(|step| record(step, TRAIN, &[("total", value(step))])).collect();
    let svg = curves(&records, &CurveOptions::default()).unwrap();
    assert_eq!(lines(&checked(&svg), 0), [20, 28]);
    let nowhere: Vec<Record> = (0..50).map(|step| record(step, TRAIN, &[("total", f64::INFINITY)])).collect();
    let svg = curves(&nowhere, &CurveOptions::default()).unwrap();
    let document = checked(&svg);
    assert!(lines(&document, 0).is_empty());
    assert!(texts(&document).iter().any(|text| text == "no values to draw"));
}

#[test]
fn long_runs_are_thinned() {
    let records: Vec<Record> = (0..100_000)
        .map(|step| record(step, TRAIN, &[("total", (step as f64 * 0.01).sin() + 2.0), ("gradient_norm", step as f64)]))
        .collect();
    for max_points in [1000, 50, usize::MAX] {
        let options = CurveOptions { max_points, ..CurveOptions::default() };
        let svg = curves(&records, &options).unwrap();
        assert_eq!(lines(&checked(&svg), 0), [max_points.min(5000); 2]);
    }
}

/// The order of the records does not matter: a resumed run may have its evaluations elsewhere.
#[test]
fn records_are_drawn_in_the_order_of_their_steps() {
    let mut records = run(200);
    let svg = curves(&records, &CurveOptions::default()).unwrap();
    records.reverse();
    assert_eq!(curves(&records, &CurveOptions::default()).unwrap(), svg);
}

fn table(rows: TableRows) -> Table {
    let names = vec!["teacher".into(), "byteified".into()];
    Table { row_name: "bytes per patch".into(), value_name: "accuracy".into(), names, rows }
}

#[test]
fn bars_are_as_long_as_their_values() {
    let rows = vec![
        ("spelling".to_owned(), vec![0.25, 0.75]),
        ("reversal of words that are longer than usual, and then some".to_owned(), vec![0.5, f64::NAN]),
        ("counting".to_owned(), vec![1.0, -0.5]),
    ];
    let table = table(TableRows::Bars(rows));
    let svg = bars_or_lines(&table, &TableOptions { title: "Character suite".into(), width: 600 }).unwrap();
    let document = checked(&svg);
    let fill = |index: usize| format!("#{:02X}{:02X}{:02X}", color(index).0, color(index).1, color(index).2);
    let widths = |index: usize| -> Vec<f64> {
        let bars =
            document.descendants().filter(|n| n.has_tag_name("rect") && n.attribute("fill") == Some(&fill(index)));
        // The first one is in the legend.
        bars.skip(1).map(|node| number(node, "width")).collect()
    };
    let (teacher, byteified) = (widths(0), widths(1));
    let whole = teacher[2];
    for (found, value) in teacher.iter().zip([0.25, 0.5, 1.0]).chain(byteified.iter().zip([0.75, 0.5])) {
        assert!((found / whole - value).abs() < 0.01, "{found} of {whole} is not {value}");
    }
    assert_eq!((teacher.len(), byteified.len()), (3, 2), "a missing value has no bar");
    let texts = texts(&document);
    for text in ["Character suite", "teacher", "byteified", "0.75", "-0.5", "–", "spelling", "accuracy"] {
        assert!(texts.iter().any(|found| found == text), "{text} is not in {texts:?}");
    }
}

#[test]
fn lines_run_over_their_numbers() {
    let rows = vec![(4.0, vec![1.2, 1.1]), (2.0, vec![1.0, f64::NAN]), (3.0, vec![1.1, 1.05])];
    let svg = bars_or_lines(&table(TableRows::Lines(rows)), &TableOptions::default()).unwrap();
    let document = checked(&svg);
    assert_eq!(lines(&document, 0), [3]);
    assert_eq!(document.descendants().filter(|node| node.has_tag_name("circle")).count(), 5);
    assert!(texts(&document).iter().any(|text| text == "bytes per patch"));
}

#[test]
fn rows_of_the_wrong_length_are_named() {
    let rows = vec![("a".to_owned(), vec![1.0, 2.0]), ("b".to_owned(), vec![1.0])];
    let error = bars_or_lines(&table(TableRows::Bars(rows)), &TableOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Row { row: 2, found: 1, expected: 2 }), "{error}");
    checked(&bars_or_lines(&table(TableRows::Lines(Vec::new())), &TableOptions::default()).unwrap());
    checked(&bars_or_lines(&table(TableRows::Bars(Vec::new())), &TableOptions::default()).unwrap());
}

#[test]
fn charts_are_written_atomically() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("curves.svg");
    std::fs::write(&path, "older").unwrap();
    let svg = curves(&run(20), &CurveOptions::default()).unwrap();
    write_svg(&path, &svg).unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), svg);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    #[cfg(unix)]
    {
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("curves.svg", &link).unwrap();
        write_svg(&link, "by the link").unwrap();
        assert!(link.is_symlink());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "by the link");
    }
    let nowhere = folder.path().join("none/curves.svg");
    assert!(matches!(write_svg(&nowhere, &svg), Err(Error::Io { path, .. }) if path == nowhere));
}
