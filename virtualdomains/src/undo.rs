//! Taking back what was done when a later step fails.

use crate::context::{Context, Failure};

type Step<'a> = (&'static str, Box<dyn FnOnce(&mut Context<'_>) -> Result<(), Failure> + 'a>);

/// Steps that were done, each with the way back.
#[derive(Default)]
pub(crate) struct Undo<'a>(Vec<Step<'a>>);

impl<'a> Undo<'a> {
    /// Notes how to take back what was just done (or is about to be, if taking back does no harm).
    pub(crate) fn note(
        &mut self,
        what: &'static str,
        back: impl FnOnce(&mut Context<'_>) -> Result<(), Failure> + 'a,
    ) {
        self.0.push((what, Box::new(back)));
    }

    /// Hands a good result on; after a failure goes all the way back first, in reverse order. A step back
    /// that fails is a warning, and the others are still made.
    pub(crate) fn finish<T>(
        self,
        context: &mut Context<'_>,
        result: Result<T, Failure>,
    ) -> Result<T, Failure> {
        if result.is_err() {
            for (what, back) in self.0.into_iter().rev() {
                if let Err(e) = back(context) {
                    context.warn(format!("could not take back: {what}: {e}"));
                }
            }
        }
        result
    }
}
