//! What became of a question: steps, where the way splits, and how each way ends.

use serde::Serialize;

use super::question::Question;

/// What a step found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// The request goes on.
    Passes,
    /// It ends here.
    Refuses,
    /// It is answered here, as somebody configured it.
    Answers,
    /// This program cannot judge it; the way is told as if the request went on.
    Unknown,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Whose Envoy: `POD.NAMESPACE`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub proxy: String,
    /// What is met: `listener`, `filter chain`, `route` and so on.
    pub what: &'static str,
    /// Which one, and what it does.
    pub text: String,
    /// What it means for the request.
    pub verdict: Verdict,
    /// Object of the user that it comes from: `KIND NAME.NAMESPACE`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub object: Option<String>,
    /// More about it, a line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<String>,
}

/// How a way ends.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
pub enum End {
    /// The request comes to a workload.
    Arrives {
        /// `POD.NAMESPACE` where it is known, else the address.
        workload: String,
        /// Address and port of the workload.
        address: String,
        /// The request as the workload gets it: method, host and path.
        #[serde(skip_serializing_if = "Option::is_none")]
        request: Option<String>,
    },
    /// An Envoy answers what somebody wants it to answer.
    Answered {
        /// Status.
        status: u16,
        /// Response flag in the log of the first Envoy on the way; `-` for none.
        flag: String,
        /// What answers.
        by: String,
    },
    /// It is refused.
    Refused {
        /// What the client gets; `None` for a connection that is closed.
        status: Option<u16>,
        /// Response flag in the log of the first Envoy on the way; `-` for none.
        flag: String,
        /// What refuses it.
        by: String,
        /// Object of the user that is responsible.
        #[serde(skip_serializing_if = "Option::is_none")]
        object: Option<String>,
        /// What to change.
        change: String,
    },
    /// It cannot be told.
    Unknown {
        /// Why.
        why: String,
    },
}

/// A way that a request may take.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Way {
    /// Share of the requests that take it, of those that come to where it begins.
    pub share: f64,
    /// What tells it from others.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub label: String,
    /// What is met.
    pub steps: Vec<Step>,
    /// What comes then.
    #[serde(flatten)]
    pub then: Then,
}

/// What comes after the steps of a way.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Then {
    /// Nothing.
    End(End),
    /// One of several ways.
    Ways(Vec<Way>),
}

/// The answer to a question.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Explanation {
    /// Who asks: `POD.NAMESPACE`.
    pub from: String,
    /// The question.
    pub request: String,
    /// What happens.
    pub way: Way,
    /// The last line.
    pub summary: String,
}

impl Way {
    /// All ends, each with its share of all requests, and what could not be told on
    /// the way to it.
    #[must_use]
    pub fn ends(&self) -> Vec<(f64, &End, Vec<&Step>)> {
        let unknown = || self.steps.iter().filter(|step| step.verdict == Verdict::Unknown);
        match &self.then {
            Then::End(end) => vec![(self.share, end, unknown().collect())],
            Then::Ways(ways) => ways
                .iter()
                .flat_map(Self::ends)
                .map(|(share, end, steps)| (self.share * share, end, unknown().chain(steps).collect()))
                .collect(),
        }
    }
}

impl Explanation {
    pub(super) fn new(from: &str, question: &Question, way: Way) -> Self {
        let summary = super::summary::of(&way);
        Self { from: from.to_owned(), request: question.to_string(), way, summary }
    }

    /// Whether some request would be refused.
    #[must_use]
    pub fn refuses(&self) -> bool {
        self.way.ends().iter().any(|(share, end, _)| *share > 0.0 && matches!(end, End::Refused { .. }))
    }

    /// Whether something could not be told.
    #[must_use]
    pub fn is_unsure(&self) -> bool {
        self.way
            .ends()
            .iter()
            .any(|(_, end, unknown)| matches!(end, End::Unknown { .. }) || !unknown.is_empty())
    }
}

/// The steps of a way that is being walked.
#[derive(Clone, Debug)]
pub(super) struct Trail {
    pub(super) share: f64,
    pub(super) label: String,
    pub(super) steps: Vec<Step>,
    pub(super) depth: usize,
}

impl Trail {
    pub(super) fn new() -> Self {
        Self { share: 1.0, label: String::new(), steps: Vec::new(), depth: 0 }
    }

    /// A way of its own after this one.
    pub(super) fn fork(&self, share: f64, label: String) -> Self {
        Self { share, label, steps: Vec::new(), depth: self.depth }
    }

    /// Adds a step that the request passes.
    pub(super) fn pass(&mut self, proxy: &str, what: &'static str, text: impl Into<String>) -> &mut Step {
        self.step(proxy, what, text, Verdict::Passes)
    }

    /// Adds a step that cannot be judged.
    pub(super) fn unsure(&mut self, proxy: &str, what: &'static str, text: impl Into<String>) -> &mut Step {
        self.step(proxy, what, text, Verdict::Unknown)
    }

    fn step(
        &mut self,
        proxy: &str,
        what: &'static str,
        text: impl Into<String>,
        verdict: Verdict,
    ) -> &mut Step {
        let step = Step {
            proxy: proxy.to_owned(),
            what,
            text: text.into(),
            verdict,
            object: None,
            details: Vec::new(),
        };
        self.steps.push(step);
        let last = self.steps.len() - 1;
        &mut self.steps[last]
    }

    /// Ends the way.
    pub(super) fn end(self, end: End) -> Way {
        Way { share: self.share, label: self.label, steps: self.steps, then: Then::End(end) }
    }

    /// Splits the way.
    pub(super) fn split(self, mut ways: Vec<Way>) -> Way {
        // One way is no split.
        if ways.len() == 1
            && let Some(only) = ways.pop()
        {
            let mut steps = self.steps;
            steps.extend(only.steps);
            return Way { share: self.share, label: self.label, steps, then: only.then };
        }
        Way { share: self.share, label: self.label, steps: self.steps, then: Then::Ways(ways) }
    }

    /// Ends the way at a step that refuses the request.
    pub(super) fn refuse(mut self, proxy: &str, what: &'static str, refusal: Refusal) -> Way {
        let Refusal { text, status, flag, object, change, details } = refusal;
        let step = self.step(proxy, what, text.clone(), Verdict::Refuses);
        step.object.clone_from(&object);
        step.details = details;
        let by =
            if proxy.is_empty() { format!("{what}: {text}") } else { format!("{what} of {proxy}: {text}") };
        self.end(End::Refused { status, flag: flag.to_owned(), by, object, change })
    }

    /// Ends the way at a step that answers.
    pub(super) fn answer(
        mut self,
        proxy: &str,
        what: &'static str,
        text: String,
        object: Option<String>,
        status: u16,
        flag: &str,
    ) -> Way {
        self.step(proxy, what, text.clone(), Verdict::Answers).object = object;
        self.end(End::Answered { status, flag: flag.to_owned(), by: text })
    }

    /// Ends the way where nothing more can be said.
    pub(super) fn give_up(self, why: String) -> Way {
        self.end(End::Unknown { why })
    }
}

/// How a request is refused.
#[derive(Clone, Debug, Default)]
pub(super) struct Refusal {
    pub(super) text: String,
    pub(super) status: Option<u16>,
    pub(super) flag: &'static str,
    pub(super) object: Option<String>,
    pub(super) change: String,
    pub(super) details: Vec<String>,
}
