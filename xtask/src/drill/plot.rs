//! Plots as SVG text, drawn by hand because a report must stand alone: axes, points, steps, marks. It knows no drill.

use std::fmt::Write;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 200.0;
const LEFT: f64 = 64.0;
const BOTTOM: f64 = 28.0;
const TOP: f64 = 10.0;
const RIGHT: f64 = 12.0;

/// Text as it may stand in HTML.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// A scatter plot with a logarithmic y axis: latencies span decades.
pub(super) fn scatter(title: &str, x_label: &str, y_label: &str, points: &[(f64, f64)]) -> String {
    let positive: Vec<_> = points.iter().copied().filter(|(_, y)| *y > 0.0 && y.is_finite()).collect();
    if positive.is_empty() {
        return String::new();
    }
    let fold = |value: fn(&(f64, f64)) -> f64, pick: fn(f64, f64) -> f64, start: f64| {
        positive.iter().map(value).fold(start, pick)
    };
    let (x_low, x_high) = (fold(|p| p.0, f64::min, f64::INFINITY), fold(|p| p.0, f64::max, f64::NEG_INFINITY));
    let low = fold(|p| p.1, f64::min, f64::INFINITY).log10().floor();
    let high = fold(|p| p.1, f64::max, f64::NEG_INFINITY).log10().ceil().max(low + 1.0);
    let span = (x_high - x_low).max(f64::MIN_POSITIVE);
    let x = |value: f64| LEFT + (value - x_low) / span * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| TOP + (high - value.log10()) / (high - low) * (HEIGHT - TOP - BOTTOM);
    let mut svg = open(title);
    let mut decade = low;
    while decade <= high {
        let (at, value) = (y(10_f64.powf(decade)), 10_f64.powf(decade));
        let _ = write!(svg, r#"<line class="grid" x1="{LEFT}" x2="{}" y1="{at:.1}" y2="{at:.1}"/>"#, WIDTH - RIGHT);
        let _ = write!(svg, r#"<text x="{}" y="{:.1}" text-anchor="end">{value}</text>"#, LEFT - 6.0, at + 4.0);
        decade += 1.0;
    }
    for (px, py) in &positive {
        let _ = write!(svg, r#"<circle cx="{:.1}" cy="{:.1}" r="2.2"/>"#, x(*px), y(*py));
    }
    let _ = write!(svg, r#"<text x="{LEFT}" y="{}">{x_low:.0}</text>"#, HEIGHT - 10.0);
    let end = WIDTH - RIGHT;
    let _ = write!(
        svg,
        r#"<text x="{end}" y="{}" text-anchor="end">{x_high:.0} {}</text>"#,
        HEIGHT - 10.0,
        escape(x_label)
    );
    let _ = write!(
        svg,
        r#"<text x="12" y="{}" transform="rotate(-90 12 {0})" text-anchor="middle">{}</text>"#,
        HEIGHT / 2.0,
        escape(y_label)
    );
    svg.push_str("</svg>");
    svg
}

/// A time line of states (one band each) with marks above: what happened when.
pub(super) fn timeline(
    title: &str,
    total_ms: u64,
    states: &[(u64, u64, String)],
    marks: &[(u64, String, bool)],
) -> String {
    let total = total_ms.max(1) as f64;
    let x = |at: u64| LEFT + at as f64 / total * (WIDTH - LEFT - RIGHT);
    let mut svg = open(title);
    for (from, to, state) in states {
        let (left, right) = (x(*from), x((*to).max(*from)));
        let class = escape(&state.to_lowercase());
        let _ = write!(
            svg,
            r#"<rect class="state {class}" x="{left:.1}" y="70" width="{:.1}" height="60"><title>{} from {:.1} s to {:.1} s</title></rect>"#,
            (right - left).max(0.5),
            escape(state),
            *from as f64 / 1e3,
            *to as f64 / 1e3,
        );
    }
    for (at, what, strong) in marks {
        let class = if *strong { "mark strong" } else { "mark" };
        let _ = write!(
            svg,
            r#"<line class="{class}" x1="{0:.1}" x2="{0:.1}" y1="{1}" y2="66"><title>{2:.1} s: {3}</title></line>"#,
            x(*at),
            if *strong { 14 } else { 40 },
            *at as f64 / 1e3,
            escape(what),
        );
    }
    for step in 0..=6_u64 {
        let at = total_ms * step / 6;
        let _ = write!(svg, r#"<text x="{:.1}" y="152" text-anchor="middle">{:.0} s</text>"#, x(at), at as f64 / 1e3);
    }
    svg.push_str("</svg>");
    svg
}

fn open(title: &str) -> String {
    let title = escape(title);
    format!(r#"<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{title}"><title>{title}</title>"#)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_text_cannot_leave_its_place() {
        let svg = timeline("<script>", 1_000, &[(0, 10, "\"><x>".into())], &[(5, "</title>".into(), true)]);
        assert!(!svg.contains("<script>") && !svg.contains("<x>") && svg.matches("</title>").count() == 3, "{svg}");
    }

    #[test]
    fn a_plot_of_nothing_is_nothing_and_one_point_is_drawn() {
        assert_eq!(scatter("t", "x", "y", &[(1.0, 0.0), (2.0, f64::NAN)]), "");
        assert_eq!(scatter("t", "x", "y", &[(1.0, 5.0)]).matches("<circle").count(), 1);
    }
}
