//! The summary of a load, as text, JSON or CSV, in the layout and with the names of oha.
//!
//! The one rule: what was not measured is null or left out, never 0.

use std::fmt::Write as _;
use std::time::Duration;

use kit::op::Latencies;
use serde_json::{Map, Value, json};

use super::result::LoadResult;
use super::{Findings, Judgement};

const PERCENTILES: [(&str, f64); 9] = [
    ("p10", 0.10),
    ("p25", 0.25),
    ("p50", 0.50),
    ("p75", 0.75),
    ("p90", 0.90),
    ("p95", 0.95),
    ("p99", 0.99),
    ("p99.9", 0.999),
    ("p99.99", 0.9999),
];

const BARS: usize = 11;
const BAR_WIDTH: u64 = 32;

/// The summary for people.
pub fn text(findings: &Findings) -> String {
    let mut out = String::new();
    let result = &findings.result;
    let latency = result.latency();
    // Writing into a string does not fail.
    let _ = summary(&mut out, result, &latency);
    let _ = histogram_text(&mut out, &latency);
    let _ = distribution(&mut out, result, &latency);
    let _ = counts(&mut out, result);
    let _ = notes(&mut out, findings);
    out
}

fn summary(out: &mut String, result: &LoadResult, latency: &Latencies) -> std::fmt::Result {
    let seconds = |ns: u64| format!("{:.4} sec", ns as f64 / 1e9);
    let some = |value: u64| if latency.count() == 0 { "-".to_owned() } else { seconds(value) };
    writeln!(out, "Summary:")?;
    writeln!(out, "  Success rate:\t{:.2}%", success_rate(result).unwrap_or(0.0) * 100.0)?;
    writeln!(out, "  Total:\t{:.4} sec", result.elapsed.as_secs_f64())?;
    writeln!(out, "  Slowest:\t{}", some(latency.max_ns()))?;
    writeln!(out, "  Fastest:\t{}", some(latency.min_ns()))?;
    writeln!(out, "  Average:\t{}", some(latency.mean_ns() as u64))?;
    writeln!(out, "  Requests/sec:\t{:.4}", result.rate_per_s())?;
    writeln!(out)?;
    writeln!(out, "  Total data:\t{}", bytes(result.ops.bytes as f64))?;
    if let Some(size) = size_per_request(result) {
        writeln!(out, "  Size/request:\t{}", bytes(size))?;
    }
    writeln!(out, "  Size/sec:\t{}", bytes(result.ops.bytes as f64 / result.elapsed.as_secs_f64().max(1e-9)))
}

fn histogram_text(out: &mut String, latency: &Latencies) -> std::fmt::Result {
    writeln!(out, "\nResponse time histogram:")?;
    let bars = histogram(latency);
    let most = bars.iter().map(|(_, count)| *count).max().unwrap_or(0).max(1);
    let digits = bars.iter().map(|(_, count)| count.to_string().len()).max().unwrap_or(1);
    for (up_to_s, count) in bars {
        let bar = "■".repeat((count * BAR_WIDTH / most) as usize);
        writeln!(out, "  {up_to_s:.6} sec [{count}]{:width$} |{bar}", "", width = digits - count.to_string().len())?;
    }
    Ok(())
}

fn distribution(out: &mut String, result: &LoadResult, latency: &Latencies) -> std::fmt::Result {
    writeln!(out, "\nResponse time distribution:")?;
    if let (failed @ 1.., all) = (result.ops.failed, latency.count()) {
        // The field counts refusals; an objective does not, because they are fast.
        let judged = all.saturating_sub(failed);
        writeln!(out, "  of all {all} requests, {failed} of which failed; objectives look at the other {judged}")?;
    }
    for (_, quantile) in PERCENTILES {
        if let Some(value) = latency.quantile(quantile) {
            let percent = quantile * 100.0;
            // As many digits as the percentile has.
            let percent = if percent.fract() == 0.0 { format!("{percent:.2}") } else { trimmed(percent) };
            writeln!(out, "  {percent:>5}% in {:.6} secs", value.as_secs_f64())?;
        }
    }
    writeln!(out, "\nDetails (p50, p99, slowest):")?;
    let parts = [("wait", &result.ops.wait), ("work", &result.ops.work), ("lag", &result.ops.lag)];
    for (name, part) in parts {
        let at = |quantile| part.quantile(quantile).map_or_else(|| "-".to_owned(), secs);
        writeln!(out, "  {name}:\t{}, {}, {}", at(0.5), at(0.99), at(1.0))?;
    }
    Ok(())
}

fn trimmed(percent: f64) -> String {
    format!("{percent:.3}").trim_end_matches('0').to_owned()
}

fn counts(out: &mut String, result: &LoadResult) -> std::fmt::Result {
    let ops = &result.ops;
    writeln!(out, "\nOutcomes:")?;
    writeln!(out, "  ok {}, failed {}, unknown {}, wrong {}", ops.ok, ops.failed, ops.unknown, ops.wrong)?;
    writeln!(out, "\nStatus code distribution:")?;
    for (status, count) in &ops.statuses {
        writeln!(out, "  [{status}] {count} responses")?;
    }
    let errors = result.errors();
    if !errors.is_empty() {
        writeln!(out, "\nError distribution:")?;
        for (why, count) in errors {
            writeln!(out, "  [{count}] {why}")?;
        }
    }
    Ok(())
}

fn notes(out: &mut String, findings: &Findings) -> std::fmt::Result {
    let guards = &findings.summary.guards;
    if !guards.is_empty() {
        writeln!(out, "\nTake care:")?;
    }
    for guard in guards {
        writeln!(out, "  {}: {}; {}", guard.id, guard.what, guard.advice)?;
    }
    match &findings.judged {
        None => Ok(()),
        Some(Judgement::Pass) => writeln!(out, "\nVerdict: pass"),
        Some(Judgement::Fail(which)) => writeln!(out, "\nVerdict: fail ({})", which.join("; ")),
        Some(Judgement::Unknown(why)) => writeln!(out, "\nVerdict: unknown ({why})"),
    }
}

/// The summary for programs: oha's names, times in seconds.
pub fn json(findings: &Findings) -> Value {
    let result = &findings.result;
    let latency = result.latency();
    let total_s = result.elapsed.as_secs_f64();
    let data = result.ops.bytes as f64;
    json!({
        "summary": {
            "successRate": success_rate(result),
            "total": total_s,
            "slowest": in_s(&latency, |latency| latency.max_ns() as f64),
            "fastest": in_s(&latency, |latency| latency.min_ns() as f64),
            "average": in_s(&latency, |latency| latency.mean_ns()),
            "requestsPerSec": result.rate_per_s(),
            "totalData": result.ops.bytes,
            "sizePerRequest": size_per_request(result),
            "sizePerSec": data / total_s.max(1e-9),
        },
        "metrics": metrics(result, &latency),
        "responseTimeHistogram": histogram(&latency)
            .into_iter()
            .map(|(up_to_s, count)| (up_to_s.to_string(), json!(count)))
            .collect::<Map<_, _>>(),
        "latencyPercentiles": percentiles(&latency),
        "rps": rates(result),
        "details": {
            "DNSDialup": nothing(),
            "DNSLookup": nothing(),
            "firstByte": nothing(),
        },
        "statusCodeDistribution": result.ops.statuses,
        "errorDistribution": result.errors(),
        "scalelab": ours(findings),
    })
}

/// What is not measured is null.
fn nothing() -> Value {
    json!({ "average": null, "fastest": null, "slowest": null })
}

fn metrics(result: &LoadResult, latency: &Latencies) -> Value {
    let ms = |quantile| latency.quantile(quantile).map(|value| value.as_secs_f64() * 1e3);
    json!({
        "success_rate": success_rate(result),
        "requests_per_sec": result.rate_per_s(),
        "latency_ms": {
            "min": in_s(latency, |latency| latency.min_ns() as f64 * 1e3),
            "mean": in_s(latency, |latency| latency.mean_ns() * 1e3),
            "p50": ms(0.5),
            "p95": ms(0.95),
            "p99": ms(0.99),
            "max": in_s(latency, |latency| latency.max_ns() as f64 * 1e3),
        },
    })
}

fn ours(findings: &Findings) -> Value {
    let Findings { result, summary, judged, .. } = findings;
    let ops = &result.ops;
    json!({
        "latencyWithoutFailed": percentiles(&ops.total),
        "wait": percentiles(&ops.wait),
        "work": percentiles(&ops.work),
        "lag": percentiles(&ops.lag),
        "outcomes": { "ok": ops.ok, "failed": ops.failed, "unknown": ops.unknown, "wrong": ops.wrong },
        "offered": ops.count(),
        "seed": result.seed,
        "interrupted": result.interrupted,
        "guards": summary.guards,
        "verdict": judged.as_ref().map(|judged| match judged {
            Judgement::Pass => json!({ "verdict": "pass" }),
            Judgement::Fail(which) => json!({ "verdict": "fail", "which": which }),
            Judgement::Unknown(why) => json!({ "verdict": "unknown", "why": why }),
        }),
    })
}

/// One line a second. There is no line a request: histograms keep none.
pub fn csv(result: &LoadResult) -> String {
    let mut out = "second,requests,ok,failed,unknown,wrong,p50,p90,p95,p99,max\n".to_owned();
    for second in &result.seconds {
        let [ok, failed, unknown, wrong] = second.counts;
        let _ = write!(out, "{},{},{ok},{failed},{unknown},{wrong}", second.second, second.count());
        for place in 0..5 {
            let value = second.latency.map(|latency| latency[place].as_secs_f64().to_string()).unwrap_or_default();
            let _ = write!(out, ",{value}");
        }
        out.push('\n');
    }
    out
}

fn success_rate(result: &LoadResult) -> Option<f64> {
    let count = result.ops.count();
    (count > 0).then(|| result.answered() as f64 / count as f64)
}

fn size_per_request(result: &LoadResult) -> Option<f64> {
    let answered = result.answered();
    (answered > 0).then(|| result.ops.bytes as f64 / answered as f64)
}

fn in_s(latency: &Latencies, of: impl Fn(&Latencies) -> f64) -> Option<f64> {
    (latency.count() > 0).then(|| of(latency) / 1e9)
}

fn percentiles(latency: &Latencies) -> Map<String, Value> {
    let value = |quantile| json!(latency.quantile(quantile).map(|value| value.as_secs_f64()));
    PERCENTILES.iter().map(|(name, quantile)| ((*name).to_owned(), value(*quantile))).collect()
}

/// Answers a second, over the whole seconds of the load.
fn rates(result: &LoadResult) -> Value {
    let whole = result.elapsed.as_secs() as usize;
    let mut rates: Vec<f64> = result.seconds.iter().take(whole).map(|second| second.count() as f64).collect();
    if rates.is_empty() {
        return json!({ "mean": null, "stddev": null, "max": null, "min": null, "percentiles": {} });
    }
    rates.sort_by(f64::total_cmp);
    let count = rates.len() as f64;
    let mean = rates.iter().sum::<f64>() / count;
    let stddev = (rates.iter().map(|rate| (rate - mean).powi(2)).sum::<f64>() / count).sqrt();
    let at = |quantile: f64| rates[((count * quantile).ceil() as usize).clamp(1, rates.len()) - 1];
    let percentiles: Map<_, _> =
        PERCENTILES.iter().map(|(name, quantile)| ((*name).to_owned(), json!(at(*quantile)))).collect();
    json!({ "mean": mean, "stddev": stddev, "max": rates.last(), "min": rates.first(), "percentiles": percentiles })
}

/// Bars of equal width from the fastest to the slowest: the upper end in seconds, and how many there are.
fn histogram(latency: &Latencies) -> Vec<(f64, u64)> {
    if latency.count() == 0 {
        return Vec::new();
    }
    let (low, high) = (latency.min_ns() as f64, latency.max_ns() as f64);
    let width = (high - low) / (BARS - 1) as f64;
    let mut bars: Vec<(f64, u64)> = (0..BARS).map(|bar| ((low + width * bar as f64) / 1e9, 0)).collect();
    for (ns, count) in latency.recorded() {
        let bar = if width > 0.0 { ((ns as f64 - low) / width).ceil() as usize } else { 0 };
        bars[bar.min(BARS - 1)].1 += count;
    }
    bars
}

fn secs(duration: Duration) -> String {
    format!("{:.6} sec", duration.as_secs_f64())
}

fn bytes(count: f64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let (mut count, mut unit) = (count, 0);
    while count >= 1024.0 && unit + 1 < UNITS.len() {
        count /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count:.0} B") } else { format!("{count:.2} {}", UNITS[unit]) }
}
