//! Temporary.
use cocoon_inference::{Model, bench, read_model};
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let a: Vec<String> = std::env::args().collect();
    let n = |i: usize, d: usize| a.get(i).and_then(|t| t.parse().ok()).unwrap_or(d);
    let model = Model::load(read_model(std::path::Path::new(&a[1]), None, |_, _| ())?)?;
    let f = bench::measure(
        &model,
        bench::Plan {
            threads: n(2, 1),
            batch: n(3, 1),
            context: n(4, 0),
            prefill: n(5, 128),
            decode: n(6, 64),
        },
    )?;
    println!("{f:?}");
    Ok(())
}
