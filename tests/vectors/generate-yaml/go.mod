module driftguard.invalid/tests/vectors/generate-yaml
go 1.25
require sigs.k8s.io/yaml v1.6.0
require go.yaml.in/yaml/v2 v2.4.4
