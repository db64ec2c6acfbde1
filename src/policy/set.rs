//! Policies, their bindings and parameters: compiled together, evaluated one object at a time.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::declared::{NAMES, RECORDS};
use super::definition::{
    Action, BindingSpec, FailurePolicy, MatchResources, NotFoundAction, ParamKind, ParamRef, PolicySpec, ResourceRule,
};
use super::matching::labels;
use super::{Finding, Subject, User};
use crate::cel::{Budget, CompileError, Declared, Environment, EvaluationError, Program, Type, Value as Cel};

/// Policies of one installation.
const POLICIES_MAX: usize = 1_000;
/// What one policy may cost for one object: a repository of 100,000 files can be gone through some times.
const STEPS_MAX: u64 = 4_000_000;
/// What all of them may cost for one revision: about two minutes on a small machine.
const STEPS_OF_REVISION_MAX: u64 = 2_000_000_000;
/// An API server cuts messages there.
const MESSAGE_BYTES_MAX: usize = 5 * 1024;
const GROUP: &str = "admissionregistration.k8s.io/v1";

/// One document of the folder.
#[derive(Clone, Debug)]
pub struct Document {
    pub path: String,
    pub line: u32,
    pub value: Value,
}

/// What is wrong with a folder of policies; nothing of it is used then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{path}:{line}: {message}")]
pub struct PolicyError {
    pub path: String,
    pub line: u32,
    pub message: String,
}

/// All policies, ready to be evaluated.
#[derive(Debug, Default)]
pub struct PolicySet {
    policies: Vec<Policy>,
    parameters: Vec<Document>,
    digest: [u8; 32],
}

/// What may be done for one revision as a whole; once it is used up nothing that is said counts any more.
#[derive(Debug)]
pub struct Allowance(Cell<u64>);

impl Default for Allowance {
    fn default() -> Self {
        Self::of(STEPS_OF_REVISION_MAX)
    }
}

impl Allowance {
    pub fn of(steps: u64) -> Self {
        Self(Cell::new(steps))
    }

    pub fn is_used_up(&self) -> bool {
        self.0.get() == 0
    }
}

#[derive(Debug)]
struct Policy {
    name: String,
    spec: PolicySpec,
    /// Its expressions ask what was there before, or what is being done.
    asks_before: bool,
    asks_for_namespaces: bool,
    asks_for_user: bool,
    conditions: Vec<Program>,
    variables: Vec<(String, Program)>,
    validations: Vec<(Program, Option<Program>)>,
    bindings: Vec<(String, BindingSpec)>,
}

impl PolicySet {
    /// Compiles all documents, or says everything that is wrong with them.
    pub fn compile(documents: Vec<Document>) -> Result<PolicySet, Vec<PolicyError>> {
        let mut errors = Vec::new();
        let mut digest = Sha256::new();
        for document in &documents {
            digest.update(document.value.to_string());
            digest.update([0]);
        }
        let (mut policies, mut bindings, mut parameters) = (BTreeMap::new(), Vec::new(), Vec::new());
        for document in documents {
            let text = |pointer: &str| document.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let (kind, name) = (text("/kind").to_owned(), text("/metadata/name").to_owned());
            match (text("/apiVersion"), kind.as_str()) {
                (GROUP, "ValidatingAdmissionPolicy") => match policy(&name, &document) {
                    Ok(policy) => {
                        if policies.insert(name.clone(), (document.clone(), policy)).is_some() {
                            errors.push(document.error(format!("the policy `{name}` is there twice")));
                        }
                    }
                    Err(error) => errors.push(error),
                },
                (GROUP, "ValidatingAdmissionPolicyBinding") => match spec::<BindingSpec>(&document) {
                    Ok(spec) => bindings.push((name, spec, document)),
                    Err(error) => errors.push(error),
                },
                _ => parameters.push(document),
            }
        }
        if policies.len() > POLICIES_MAX {
            let (_, (document, _)) = policies.iter().nth(POLICIES_MAX).expect("there are more");
            errors.push(document.error(format!("there are more than {POLICIES_MAX} policies")));
        }
        for (name, spec, document) in bindings {
            match policies.get_mut(&spec.policy_name) {
                Some((_, policy)) => match binding_error(policy, &spec) {
                    Some(message) => errors.push(document.error(message)),
                    None => policy.bindings.push((name, spec)),
                },
                None => errors.push(
                    document
                        .error(format!("the binding `{name}` is of a policy `{}` that is not here", spec.policy_name)),
                ),
            }
        }
        let kinds: BTreeSet<(String, String)> = policies
            .values()
            .filter_map(|(_, policy)| policy.spec.param_kind.as_ref())
            .map(|kind| (kind.api_version.clone(), kind.kind.clone()))
            .collect();
        for document in &parameters {
            let text = |field: &str| document.value[field].as_str().unwrap_or_default().to_owned();
            if !kinds.contains(&(text("apiVersion"), text("kind"))) {
                errors.push(document.error(format!(
                    "`{} {}` is no policy, no binding, and no `paramKind` of a policy here",
                    text("apiVersion"),
                    text("kind")
                )));
            }
        }
        for (document, policy) in policies.values().filter(|(_, policy)| policy.bindings.is_empty()) {
            errors.push(document.error(format!(
                "the policy `{}` has no binding, so it would never say no\nhint: add a ValidatingAdmissionPolicyBinding",
                policy.name
            )));
        }
        if !errors.is_empty() {
            return Err(errors);
        }
        let policies = policies.into_values().map(|(_, policy)| policy).collect();
        Ok(PolicySet { policies, parameters, digest: digest.finalize().into() })
    }

    /// Equal digests: the same is said.
    pub fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    pub fn len(&self) -> usize {
        self.policies.len()
    }

    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Whether a policy asks what the object was before, or whether it was there.
    pub fn asks_before(&self, subject: &Subject<'_>) -> bool {
        self.policies.iter().any(|policy| policy.asks_before() && policy.spec.match_constraints.concerns(subject))
    }

    /// Whether a policy asks for the Namespace that the object is in, for more than its name.
    pub fn asks_for_namespace(&self, subject: &Subject<'_>) -> bool {
        self.policies
            .iter()
            .any(|policy| policy.asks_for_namespaces() && policy.spec.match_constraints.concerns(subject))
    }

    /// Whether a policy asks who applies the object.
    pub fn asks_for_user(&self, subject: &Subject<'_>) -> bool {
        self.policies.iter().any(|policy| policy.asks_for_user && policy.spec.match_constraints.concerns(subject))
    }

    /// Whether a policy is for what [`super::snapshot`] makes.
    pub fn has_repository_rules(&self) -> bool {
        let nothing = Value::Null;
        let subject = Subject::repository(&nothing);
        self.policies.iter().any(|policy| policy.spec.match_constraints.concerns(&subject))
    }

    /// Whether the sizes of files matter to a policy.
    pub fn asks_for_sizes(&self) -> bool {
        // `size()` counts something else
        let asks = |text: &str| {
            let called = |at: usize| text[at..].trim_start().starts_with('(');
            text.match_indices("size").any(|(at, word)| !called(at + word.len()))
        };
        self.policies.iter().any(|policy| policy.expressions().any(asks))
    }

    /// What the policies say of one object.
    pub fn evaluate(&self, subject: &Subject<'_>) -> Vec<Finding> {
        self.evaluate_within(subject, &Allowance::default())
    }

    /// As [`PolicySet::evaluate`], for one of many objects. What is answered when the allowance is used up is not all
    /// that there is to say.
    pub fn evaluate_within(&self, subject: &Subject<'_>, allowance: &Allowance) -> Vec<Finding> {
        let mut findings = Vec::new();
        let mut request = None;
        for policy in self.policies.iter().filter(|policy| policy.spec.match_constraints.matches(subject)) {
            let request: &Value = request.get_or_insert_with(|| subject.request());
            for (name, binding) in policy.bindings.iter().filter(|(_, spec)| spec.match_resources.matches(subject)) {
                let given = STEPS_MAX.min(allowance.0.get());
                let budget = Budget::new(given);
                let violations = self.violations(policy, binding, subject, request, &budget);
                allowance.0.set(allowance.0.get() - (given - budget.left()));
                for (message, reason) in violations {
                    for action in &binding.validation_actions {
                        findings.push(Finding {
                            policy: policy.name.clone(),
                            binding: name.clone(),
                            action: *action,
                            message: message.clone(),
                            reason: reason.clone(),
                        });
                    }
                }
            }
        }
        findings
    }

    /// What is wrong with the object: message and reason of each validation that it fails.
    fn violations(
        &self,
        policy: &Policy,
        binding: &BindingSpec,
        subject: &Subject<'_>,
        request: &Value,
        budget: &Budget,
    ) -> Vec<(String, String)> {
        let parameters = match self.parameters(policy, binding, subject) {
            Ok(parameters) => parameters,
            Err(Some(message)) => return policy.failure(message).into_iter().collect(),
            Err(None) => return Vec::new(),
        };
        parameters.into_iter().flat_map(|params| policy.judge(subject, params, request, budget)).collect()
    }

    /// `Err(None)`: there is none, and that is fine.
    fn parameters(
        &self,
        policy: &Policy,
        binding: &BindingSpec,
        subject: &Subject<'_>,
    ) -> Result<Vec<Option<&Value>>, Option<String>> {
        let (Some(kind), Some(wanted)) = (&policy.spec.param_kind, &binding.param_ref) else { return Ok(vec![None]) };
        let found: Vec<Option<&Value>> = self
            .parameters
            .iter()
            .map(|d| &d.value)
            .filter(|value| is_wanted(value, kind, wanted, subject))
            .map(Some)
            .collect();
        match (found.is_empty(), wanted.parameter_not_found_action) {
            (false, _) => Ok(found),
            (true, NotFoundAction::Allow) => Err(None),
            (true, NotFoundAction::Deny) => {
                Err(Some("no params found for policy binding with `Deny` parameterNotFoundAction".to_owned()))
            }
        }
    }
}

impl Policy {
    fn resources(&self) -> impl Iterator<Item = &MatchResources> {
        [&self.spec.match_constraints].into_iter().chain(self.bindings.iter().map(|(_, b)| &b.match_resources))
    }

    fn expressions(&self) -> impl Iterator<Item = &str> {
        let spec = &self.spec;
        let messages = spec.validations.iter().filter_map(|v| v.message_expression.as_ref());
        let named = spec.match_conditions.iter().chain(&spec.variables).map(|named| &named.expression);
        spec.validations.iter().map(|v| &v.expression).chain(messages).chain(named).map(String::as_str)
    }

    fn asks_before(&self) -> bool {
        let by_operation = |rule: &ResourceRule| {
            let has = |operation: &str| rule.operations.iter().any(|one| one == operation);
            !has("*") && has("CREATE") != has("UPDATE")
        };
        let mut rules = self.resources().flat_map(|r| r.resource_rules.iter().chain(&r.exclude_resource_rules));
        self.asks_before || rules.any(by_operation)
    }

    fn asks_for_namespaces(&self) -> bool {
        self.asks_for_namespaces || self.resources().any(MatchResources::asks_for_namespaces)
    }

    /// What an evaluation without an answer comes to.
    fn failure(&self, message: String) -> Option<(String, String)> {
        (self.spec.failure_policy == FailurePolicy::Fail).then(|| (message, "Invalid".to_owned()))
    }

    fn judge(
        &self,
        subject: &Subject<'_>,
        params: Option<&Value>,
        request: &Value,
        budget: &Budget,
    ) -> Vec<(String, String)> {
        const NULL: &Value = &Value::Null;
        let variables = vec![
            ("object", Cel::of(subject.object)),
            ("oldObject", Cel::of(subject.old_object.unwrap_or(NULL))),
            ("request", Cel::of(request)),
            ("params", Cel::of(params.unwrap_or(NULL))),
            ("namespaceObject", Cel::of(subject.namespace_object.unwrap_or(NULL))),
        ];
        let environment = Environment::new(variables, &self.variables, budget);
        let mut failed = None;
        for (condition, written) in self.conditions.iter().zip(&self.spec.match_conditions) {
            match environment.evaluate(condition) {
                Ok(Cel::Bool(true)) => {}
                // one that says no counts more than others that fail
                Ok(Cel::Bool(false)) => return Vec::new(),
                Ok(_) => drop(failed.get_or_insert(format!("matchCondition `{}` is no boolean", written.name))),
                Err(error) => drop(failed.get_or_insert(format!("matchCondition `{}`: {error}", written.name))),
            }
        }
        if let Some(message) = failed {
            return self.failure(message).into_iter().collect();
        }
        let mut violations = Vec::new();
        for ((validation, message), written) in self.validations.iter().zip(&self.spec.validations) {
            match environment.evaluate(validation) {
                Ok(Cel::Bool(true)) => {}
                Ok(Cel::Bool(false)) => {
                    // what is made of a Secret may hold its values
                    let message = message.as_ref().filter(|_| !subject.is_secret());
                    let made = message.and_then(|message| said(environment.evaluate(message)));
                    let text = made.or_else(|| written.message.as_deref().map(|text| text.trim().to_owned()));
                    let text = text.unwrap_or_else(|| format!("failed expression: {}", written.expression.trim()));
                    violations.push((text, written.reason.clone().unwrap_or_else(|| "Invalid".to_owned())));
                }
                Ok(_) => violations
                    .extend(self.failure(format!("expression `{}` resulted in no boolean", written.expression.trim()))),
                Err(error) => {
                    let text = format!("expression `{}` resulted in error: {error}", written.expression.trim());
                    violations.extend(self.failure(text));
                }
            }
        }
        violations
    }
}

/// A message that was made, if it can be used; else the written one counts.
fn said(made: Result<Cel<'_>, EvaluationError>) -> Option<String> {
    let Ok(Cel::Text(text)) = made else { return None };
    let text = text.as_str().trim();
    (!text.is_empty() && !text.contains('\n') && text.len() <= MESSAGE_BYTES_MAX).then(|| text.to_owned())
}

fn is_wanted(value: &Value, kind: &ParamKind, wanted: &ParamRef, subject: &Subject<'_>) -> bool {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    // without a namespace of its own, a parameter is the object's
    let namespace = wanted.namespace.as_deref().unwrap_or_else(|| subject.namespace());
    let own = text("/metadata/namespace");
    text("/apiVersion") == kind.api_version
        && text("/kind") == kind.kind
        && (own.is_empty() || own == namespace)
        && wanted.name.as_deref().is_none_or(|name| text("/metadata/name") == name)
        && wanted.selector.as_ref().is_none_or(|selector| selector.selects(labels(value)))
}

fn binding_error(policy: &Policy, binding: &BindingSpec) -> Option<String> {
    match (&policy.spec.param_kind, &binding.param_ref) {
        (None, Some(_)) => Some(format!("`paramRef` of a policy without `paramKind`: `{}`", policy.name)),
        (_, Some(ParamRef { name: Some(_), selector: Some(_), .. } | ParamRef { name: None, selector: None, .. })) => {
            Some("`paramRef` needs either `name` or `selector`".to_owned())
        }
        _ if binding.validation_actions.is_empty() => Some("`validationActions` is empty".to_owned()),
        _ if binding.validation_actions.contains(&Action::Deny)
            && binding.validation_actions.contains(&Action::Warn) =>
        {
            Some("`validationActions` can't be `Deny` and `Warn` at once".to_owned())
        }
        _ => None,
    }
}

impl Document {
    fn error(&self, message: impl Into<String>) -> PolicyError {
        PolicyError { path: self.path.clone(), line: self.line, message: message.into() }
    }
}

fn spec<T: DeserializeOwned>(document: &Document) -> Result<T, PolicyError> {
    serde_json::from_value(document.value["spec"].clone()).map_err(|error| document.error(format!("`spec`: {error}")))
}

fn policy(name: &str, document: &Document) -> Result<Policy, PolicyError> {
    let spec: PolicySpec = spec(document)?;
    if spec.match_constraints.resource_rules.is_empty() {
        return Err(document.error("`spec.matchConstraints.resourceRules` is empty"));
    }
    if spec.validations.is_empty() && spec.audit_annotations.is_empty() {
        return Err(document.error("`spec.validations` is empty"));
    }
    let mut names = NAMES.to_vec();
    if spec.param_kind.is_some() {
        names.push("params");
    }
    let wrong =
        |field: String, error: CompileError| document.error(format!("policy `{name}`: `spec.{field}`: {error}"));
    let none: Vec<(String, Type)> = Vec::new();
    let mut conditions = Vec::new();
    for (at, condition) in spec.match_conditions.iter().enumerate() {
        let declared = Declared { names: &names, records: &RECORDS, composed: &none };
        let program = Program::compile_as("bool", &condition.expression, &declared);
        conditions.push(program.map_err(|error| wrong(format!("matchConditions[{at}].expression"), error))?);
    }
    let (mut types, mut variables): (Vec<(String, Type)>, Vec<_>) = (Vec::new(), Vec::new());
    for (at, variable) in spec.variables.iter().enumerate() {
        if types.iter().any(|(known, _)| *known == variable.name) {
            return Err(document.error(format!("policy `{name}`: `variables.{}` is there twice", variable.name)));
        }
        let declared = Declared { names: &names, records: &RECORDS, composed: &types };
        let program = Program::compile(&variable.expression, &declared)
            .map_err(|error| wrong(format!("variables[{at}].expression"), error))?;
        types.push((variable.name.clone(), program.kind.clone()));
        variables.push((variable.name.clone(), program));
    }
    let declared = Declared { names: &names, records: &RECORDS, composed: &types };
    let mut validations = Vec::new();
    for (at, validation) in spec.validations.iter().enumerate() {
        let program = Program::compile_as("bool", &validation.expression, &declared)
            .map_err(|error| wrong(format!("validations[{at}].expression"), error))?;
        let message = validation.message_expression.as_ref().map(|text| Program::compile_as("string", text, &declared));
        let message =
            message.transpose().map_err(|error| wrong(format!("validations[{at}].messageExpression"), error))?;
        validations.push((program, message));
    }
    for annotation in &spec.audit_annotations {
        Program::compile(&annotation.value_expression, &declared)
            .map_err(|error| wrong(format!("auditAnnotations[{}].valueExpression", annotation.key), error))?;
    }
    let mut policy = Policy {
        name: name.to_owned(),
        spec,
        asks_before: false,
        asks_for_namespaces: false,
        asks_for_user: false,
        conditions,
        variables,
        validations,
        bindings: Vec::new(),
    };
    let asks = |word: &str| policy.expressions().any(|text| text.contains(word));
    let (before, namespaces) = (asks("oldObject") || asks("operation"), asks("namespaceObject"));
    let user = asks("userInfo");
    (policy.asks_before, policy.asks_for_namespaces, policy.asks_for_user) = (before, namespaces, user);
    Ok(policy)
}

impl Subject<'_> {
    /// The `request` of expressions, as far as there is one.
    fn request(&self) -> Value {
        let resource = json!({"group": self.group, "version": self.version, "resource": self.resource});
        let kind = json!({"group": self.group, "version": self.version, "kind": self.kind});
        json!({
            "operation": self.operation(), "name": self.name(), "namespace": self.namespace(), "dryRun": false,
            "kind": kind, "resource": resource, "requestKind": kind, "requestResource": resource,
            "subResource": "", "requestSubResource": "", "uid": "", "options": {},
            "userInfo": self.user.unwrap_or(&User::default()),
        })
    }
}
