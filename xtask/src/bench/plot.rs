//! Plots as SVG files, drawn by hand: bars for ratios, lines for growth, both on logarithmic axes because the figures span
//! decades. It judges nothing: what is met comes with the report.

use std::fmt::Write;

use super::figures::{Plot, Report, Verdict, figure};

const WIDTH: f64 = 860.0;
const FONT: &str = "font-family=\"system-ui, sans-serif\"";
const GOOD: &str = "#1a7f5a";
const BAD: &str = "#c2452d";
const PLAIN: &str = "#5b7083";
const INK: &str = "#222";
const GRID: &str = "#ddd";
/// Lines' colours, told apart also by people who don't see all of them.
const COLOURS: [&str; 6] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#999999"];

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The decades that hold all of `values`, at least one; none when there is no value to draw.
fn decades(values: impl Iterator<Item = f64>) -> Option<(i32, i32)> {
    let logs = values.filter(|value| *value > 0.0 && value.is_finite()).map(f64::log10);
    let (low, high) = logs.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), log| (low.min(log), high.max(log)));
    // A thousandth: what is exactly a power of ten belongs to one decade, not two.
    let (low, high) = ((low + 1e-3).floor(), (high - 1e-3).ceil());
    #[allow(clippy::cast_possible_truncation, reason = "the logarithm of a finite number is small")]
    low.is_finite().then(|| (low as i32, (high as i32).max(low as i32 + 1)))
}

/// A power of ten as people write it.
fn power(exponent: i32) -> String {
    match exponent {
        ..0 => format!("{:.*}", usize::try_from(-exponent).unwrap_or_default(), 10_f64.powi(exponent)),
        0..=5 => format!("{}", 10_i64.pow(exponent.unsigned_abs())),
        _ => format!("10^{exponent}"),
    }
}

struct Svg(String);

impl Svg {
    fn new(title: &str, height: f64) -> Self {
        let title = escape(title);
        Self(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" {FONT} font-size=\"12\">\n\
             <title>{title}</title>\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
             <text x=\"12\" y=\"22\" font-size=\"15\" font-weight=\"600\" fill=\"{INK}\">{title}</text>\n"
        ))
    }

    fn line(&mut self, [x1, y1, x2, y2]: [f64; 4], colour: &str, width: f64) {
        let _ = writeln!(
            self.0,
            "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
        );
    }

    /// `anchor` is `start`, `middle` or `end`.
    fn text(&mut self, x: f64, y: f64, anchor: &str, colour: &str, text: &str) {
        let text = escape(text);
        let _ = writeln!(
            self.0,
            "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{colour}\">{text}</text>"
        );
    }

    fn end(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

/// One bar a row: ours over the fastest peer, on one thread; green, red or grey as the row's targets on one thread are met,
/// not met, or none. A black tick is where a target ends. Empty when no row has a peer.
pub(super) fn ratios(report: &Report) -> String {
    const LEFT: f64 = 250.0;
    const TOP: f64 = 64.0;
    const STEP: f64 = 26.0;
    let rows: Vec<_> = report.rows.iter().filter_map(|row| Some((row, *row.ratio_to_best.get(&1)?))).collect();
    let ends = || rows.iter().flat_map(|(row, _)| tick(report, row));
    let Some((low, high)) = decades(rows.iter().map(|(_, ratio)| *ratio).chain(ends()).chain([1.0])) else {
        return String::new();
    };
    let height = TOP + STEP * rows.len() as f64 + 44.0;
    let bottom = height - 40.0;
    let right = WIDTH - 60.0;
    let x = |value: f64| LEFT + (value.log10() - f64::from(low)) / f64::from(high - low) * (right - LEFT);
    let mut svg = Svg::new("Time of a call, ours divided by the fastest peer's, one thread", height);
    svg.text(12.0, 42.0, "start", PLAIN, "shorter is better; 1 = as fast; tick = where the target ends; green = target met, red = not met, grey = no target");
    for exponent in low..=high {
        let at = x(10_f64.powi(exponent));
        svg.line([at, TOP - 6.0, at, bottom], GRID, 1.0);
        svg.text(at, bottom + 16.0, "middle", INK, &power(exponent));
    }
    svg.text(f64::midpoint(LEFT, right), bottom + 34.0, "middle", INK, "ratio (logarithmic)");
    for (index, (row, ratio)) in rows.iter().enumerate() {
        let top = TOP + STEP * index as f64;
        let alone = || row.targets.iter().filter(|judged| judged.target.threads == 1);
        let colour = match (alone().count(), alone().all(|judged| judged.verdict == Verdict::Met)) {
            (0, _) => PLAIN,
            (_, true) => GOOD,
            (_, false) => BAD,
        };
        let (start, end) = (x(10_f64.powi(low)), x(*ratio));
        let _ = writeln!(
            svg.0,
            "<rect x=\"{start:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"16\" fill=\"{colour}\"/>",
            (end - start).max(1.0)
        );
        svg.text(LEFT - 8.0, top + 12.0, "end", INK, &row.title);
        svg.text(end + 5.0, top + 12.0, "start", INK, &format!("{ratio:.2}"));
        for at in tick(report, row) {
            svg.line([x(at), top - 3.0, x(at), top + 19.0], INK, 2.0);
        }
    }
    svg.line([x(1.0), TOP - 6.0, x(1.0), bottom], INK, 1.0);
    svg.end()
}

/// Where a row's targets on one thread end, as a ratio to the fastest peer, which may be another than the target's.
fn tick(report: &Report, row: &super::figures::Row) -> Vec<f64> {
    let nanos = |who: &str| figure(row.cases.iter().find(|case| case.who == who)?, 1, &report.machine);
    let best = row.cases.iter().filter(|case| !case.is_ours()).filter_map(|case| figure(case, 1, &report.machine));
    let Some(best) = best.min_by(f64::total_cmp) else { return Vec::new() };
    let alone = row.targets.iter().filter(|judged| judged.target.threads == 1);
    alone.filter_map(|judged| Some(judged.target.at_most * nanos(&judged.target.peer)? / best)).collect()
}

/// Lines of one quantity's growth. Empty when there is no point to draw.
pub(super) fn growth(plot: &Plot) -> String {
    const LEFT: f64 = 70.0;
    const TOP: f64 = 40.0;
    const BOTTOM: f64 = 330.0;
    const HEIGHT: f64 = 380.0;
    let points = || plot.lines.iter().flat_map(|line| &line.points);
    let x_range = decades(points().map(|(x, _)| *x as f64));
    let (Some((x_low, x_high)), Some((y_low, y_high))) = (x_range, decades(points().map(|(_, y)| *y))) else {
        return String::new();
    };
    let right = WIDTH - 250.0;
    let x = |value: f64| LEFT + (value.log10() - f64::from(x_low)) / f64::from(x_high - x_low) * (right - LEFT);
    let y = |value: f64| BOTTOM - (value.log10() - f64::from(y_low)) / f64::from(y_high - y_low) * (BOTTOM - TOP);
    let mut svg = Svg::new(&plot.title, HEIGHT);
    for exponent in x_low..=x_high {
        let at = x(10_f64.powi(exponent));
        svg.line([at, TOP, at, BOTTOM], GRID, 1.0);
        svg.text(at, BOTTOM + 16.0, "middle", INK, &power(exponent));
    }
    for exponent in y_low..=y_high {
        let at = y(10_f64.powi(exponent));
        svg.line([LEFT, at, right, at], GRID, 1.0);
        svg.text(LEFT - 6.0, at + 4.0, "end", INK, &power(exponent));
    }
    svg.line([LEFT, TOP, LEFT, BOTTOM], INK, 1.0);
    svg.line([LEFT, BOTTOM, right, BOTTOM], INK, 1.0);
    svg.text(f64::midpoint(LEFT, right), BOTTOM + 36.0, "middle", INK, &plot.x);
    let _ = writeln!(
        svg.0,
        "<text x=\"16\" y=\"{0:.1}\" transform=\"rotate(-90 16 {0:.1})\" text-anchor=\"middle\" fill=\"{INK}\">{1}</text>",
        f64::midpoint(TOP, BOTTOM),
        escape(&plot.y)
    );
    // Names stand at the ends of their lines, moved apart where the lines end together.
    let drawn: Vec<_> =
        plot.lines.iter().zip(COLOURS.iter().cycle()).filter(|(line, _)| !line.points.is_empty()).collect();
    let mut names: Vec<_> =
        drawn.iter().map(|(line, colour)| (y(line.points[line.points.len() - 1].1), *line, **colour)).collect();
    names.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut free = TOP;
    for (at, line, colour) in names {
        let at = at.max(free);
        free = at + 30.0;
        let last = line.points[line.points.len() - 1].1;
        svg.text(right + 10.0, at + 4.0, "start", colour, &line.who);
        svg.text(right + 10.0, at + 18.0, "start", colour, &format!("{last:.1} at the end"));
    }
    for (line, colour) in drawn {
        let path: Vec<String> =
            line.points.iter().map(|(px, py)| format!("{:.1},{:.1}", x(*px as f64), y(*py))).collect();
        let _ = writeln!(
            svg.0,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (px, py) in &line.points {
            let _ =
                writeln!(svg.0, "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\" fill=\"{colour}\"/>", x(*px as f64), y(*py));
        }
    }
    svg.end()
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::figures::tests::measured;
    use super::super::figures::{Line, Plot, Report};
    use super::*;

    pub(in super::super) fn plot() -> Plot {
        let line = |who: &str, points: &[(u64, f64)]| Line { who: who.into(), points: points.to_vec() };
        let lines = vec![line("ours", &[(1, 20.0), (1_000, 30.0)]), line("<peer> & co", &[(1, 40.0), (1_000, 400.0)])];
        Plot { id: "keys".into(), title: "limiter by key".into(), x: "keys".into(), y: "ns a call".into(), lines }
    }

    #[test]
    fn bars_carry_their_titles_ratios_and_the_end_of_the_target() {
        insta::assert_snapshot!(ratios(&Report::new(measured())));
    }

    #[test]
    fn lines_have_axes_units_and_names_and_hostile_text_stays_text() {
        let svg = growth(&plot());
        assert!(svg.contains("&lt;peer&gt; &amp; co") && !svg.contains("<peer>"));
        insta::assert_snapshot!(svg);
    }

    #[test]
    fn nothing_measured_draws_nothing_and_one_point_draws_one() {
        let mut one = plot();
        one.lines.truncate(1);
        one.lines[0].points = vec![(1, 1.0)];
        assert_eq!(growth(&one).matches("<circle").count(), 1);
        one.lines[0].points.clear();
        assert_eq!(growth(&one), "");
        one.lines[0].points = vec![(1, f64::NAN)];
        assert_eq!(growth(&one), "");
    }

    #[test]
    fn axes_run_over_whole_decades() {
        assert_eq!(decades([1.0, 1_000.0].into_iter()), Some((0, 3)));
        assert_eq!(decades([0.15, 0.9].into_iter()), Some((-1, 0)));
        assert_eq!(decades([5.0].into_iter()), Some((0, 1)));
        assert_eq!(decades([1.0].into_iter()), Some((0, 1)));
        assert_eq!(decades([f64::NAN, 0.0, -1.0].into_iter()), None);
        assert_eq!([-2, 0, 5, 6].map(power), ["0.01", "1", "100000", "10^6"]);
    }
}
