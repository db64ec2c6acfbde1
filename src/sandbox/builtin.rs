//! The built-in resources that the sandbox serves: a table of their names, scopes and subresources.

use std::sync::{Arc, LazyLock};

use super::resource::{CollectionId, Form, Generation, Resource};

/// `group version plural kind scope short-names categories flags`; `-` is empty.
///
/// Scope: `N` namespaced, `C` cluster. Flags: `s` status, `c` scale, `g` generation, `a` generation that also counts
/// annotations. The singular is the lower-case kind.
const TABLE: &str = "
- v1 configmaps ConfigMap N cm - -
- v1 endpoints Endpoints N ep - -
- v1 events Event N ev - -
- v1 limitranges LimitRange N limits - -
- v1 namespaces Namespace C ns - s
- v1 nodes Node C no - s
- v1 persistentvolumeclaims PersistentVolumeClaim N pvc - s
- v1 persistentvolumes PersistentVolume C pv - s
- v1 pods Pod N po all sg
- v1 podtemplates PodTemplate N - - g
- v1 replicationcontrollers ReplicationController N rc all scg
- v1 resourcequotas ResourceQuota N quota - s
- v1 secrets Secret N - - -
- v1 serviceaccounts ServiceAccount N sa - -
- v1 services Service N svc all s
admissionregistration.k8s.io v1 mutatingwebhookconfigurations MutatingWebhookConfiguration C - api-extensions g
admissionregistration.k8s.io v1 validatingadmissionpolicies ValidatingAdmissionPolicy C - api-extensions sg
admissionregistration.k8s.io v1 validatingadmissionpolicybindings ValidatingAdmissionPolicyBinding C - api-extensions g
admissionregistration.k8s.io v1 validatingwebhookconfigurations ValidatingWebhookConfiguration C - api-extensions g
apiextensions.k8s.io v1 customresourcedefinitions CustomResourceDefinition C crd,crds api-extensions sg
apiregistration.k8s.io v1 apiservices APIService C - api-extensions s
apps v1 controllerrevisions ControllerRevision N - - -
apps v1 daemonsets DaemonSet N ds all sg
apps v1 deployments Deployment N deploy all sca
apps v1 replicasets ReplicaSet N rs all scg
apps v1 statefulsets StatefulSet N sts all scg
autoscaling v2 horizontalpodautoscalers HorizontalPodAutoscaler N hpa all s
batch v1 cronjobs CronJob N cj all sg
batch v1 jobs Job N - all sg
certificates.k8s.io v1 certificatesigningrequests CertificateSigningRequest C csr - s
coordination.k8s.io v1 leases Lease N - - -
discovery.k8s.io v1 endpointslices EndpointSlice N - - g
events.k8s.io v1 events Event N ev - -
flowcontrol.apiserver.k8s.io v1 flowschemas FlowSchema C - - sg
flowcontrol.apiserver.k8s.io v1 prioritylevelconfigurations PriorityLevelConfiguration C - - sg
networking.k8s.io v1 ingressclasses IngressClass C - - g
networking.k8s.io v1 ingresses Ingress N ing - sg
networking.k8s.io v1 networkpolicies NetworkPolicy N netpol - g
node.k8s.io v1 runtimeclasses RuntimeClass C - - -
policy v1 poddisruptionbudgets PodDisruptionBudget N pdb - sg
rbac.authorization.k8s.io v1 clusterrolebindings ClusterRoleBinding C - - -
rbac.authorization.k8s.io v1 clusterroles ClusterRole C - - -
rbac.authorization.k8s.io v1 rolebindings RoleBinding N - - -
rbac.authorization.k8s.io v1 roles Role N - - -
scheduling.k8s.io v1 priorityclasses PriorityClass C pc - g
storage.k8s.io v1 csidrivers CSIDriver C - - -
storage.k8s.io v1 csinodes CSINode C - - -
storage.k8s.io v1 csistoragecapacities CSIStorageCapacity N - - -
storage.k8s.io v1 storageclasses StorageClass C sc - -
storage.k8s.io v1 volumeattachments VolumeAttachment C - - s
";

static RESOURCES: LazyLock<Vec<Arc<Resource>>> =
    LazyLock::new(|| TABLE.lines().filter(|line| !line.is_empty()).map(|line| Arc::new(parse(line))).collect());

/// All built-in resources, the core group first, then by group.
pub fn resources() -> &'static [Arc<Resource>] {
    &RESOURCES
}

/// A built-in resource that is known to be in the table.
pub fn resource(group: &str, plural: &str) -> Arc<Resource> {
    let found = RESOURCES.iter().find(|r| r.is(group, plural));
    Arc::clone(found.unwrap_or_else(|| panic!("`{plural}` of `{group}` is not in the table of built-in resources")))
}

fn parse(line: &str) -> Resource {
    let fields: Vec<&str> = line.split(' ').map(|f| if f == "-" { "" } else { f }).collect();
    let [group, version, plural, kind, scope, short_names, categories, flags] = fields[..] else {
        panic!("a line of the table of built-in resources has {} fields: `{line}`", fields.len());
    };
    let words = |list: &str| list.split(',').filter(|w| !w.is_empty()).map(str::to_owned).collect();
    let events_group = group == "events.k8s.io";
    Resource {
        group: group.into(),
        version: version.into(),
        plural: plural.into(),
        singular: kind.to_lowercase(),
        kind: kind.into(),
        list_kind: format!("{kind}List"),
        namespaced: scope == "N",
        short_names: words(short_names),
        categories: words(categories),
        status: flags.contains('s'),
        scale: flags.contains('c'),
        generation: match (flags.contains('g'), flags.contains('a')) {
            (_, true) => Generation::SpecAndAnnotations,
            (true, _) => Generation::Spec,
            _ => Generation::None,
        },
        form: if events_group { Form::EventsGroup } else { Form::Stored },
        collection: CollectionId { group: if events_group { "".into() } else { group.into() }, plural: plural.into() },
        custom: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_of_the_table_is_a_resource() {
        assert_eq!(resources().len(), TABLE.lines().count() - 1);
        let deployments = resource("apps", "deployments");
        assert_eq!(deployments.subresources().collect::<Vec<_>>(), ["scale", "status"]);
        assert_eq!(deployments.short_names, ["deploy"]);
        assert_eq!(deployments.singular, "deployment");
    }
}
