//! Trains a generator on a toy distribution: `cargo run --release --example 02_train`.

use cudrift::data::Toy;
use cudrift::train::{Config, Trainer};

fn main() -> Result<(), cudrift::Error> {
    let mut trainer = Trainer::new(Config::notebook(Toy::SwissRoll))?;
    let start = std::time::Instant::now();
    for step in 1..=200 {
        trainer.step()?;
        if step % 50 == 0 {
            let report = trainer.report()?;
            let [swd1, _] = trainer.evaluate(2048, 200)?;
            println!("step {step}: loss {:.2e}, SWD1 {swd1:.3}, {:.1?}", report.loss_ema, start.elapsed());
        }
    }
    Ok(())
}
