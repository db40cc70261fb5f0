//! Prints some documents: `cargo run -p bolmo-corpus --example sample -- 4000 1` prints 4000 bytes of seed 1.

use bolmo_corpus::{Corpus, Part, SEPARATOR};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let bytes = arguments.next().map_or(Ok(4000), |bytes| bytes.parse())?;
    let seed = arguments.next().map_or(Ok(1), |seed| seed.parse())?;
    for document in (Corpus { seed, bytes, puzzle_share: 0.3 }).documents(Part::Training)? {
        print!("{}{SEPARATOR}", document.text);
    }
    Ok(())
}
