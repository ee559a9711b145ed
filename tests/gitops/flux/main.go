// Applies manifests as Flux's kustomize-controller does for one Kustomization: the same library, the same options.
//
//	flux -name NAME -namespace NAMESPACE [-stage GROUP/KIND] [-wait] <MANIFESTS
//
// Ends with 1 and says why when Flux would say Ready=False.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/fluxcd/cli-utils/pkg/kstatus/polling"
	"github.com/fluxcd/pkg/ssa"
	"github.com/fluxcd/pkg/ssa/normalize"
	"github.com/fluxcd/pkg/ssa/utils"
	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/log"
)

func main() {
	log.SetLogger(logr.Discard())
	if err := reconcile(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func reconcile() error {
	name := flag.String("name", "", "name of the Kustomization")
	namespace := flag.String("namespace", "", "namespace of the Kustomization")
	stage := flag.String("stage", "", "as --custom-apply-stage-kinds of kustomize-controller")
	wait := flag.Bool("wait", false, "as spec.wait of the Kustomization")
	flag.Parse()

	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	config.QPS, config.Burst = 50, 300
	cluster, err := client.New(config, client.Options{Scheme: runtime.NewScheme()})
	if err != nil {
		return err
	}
	objects, err := utils.ReadObjects(os.Stdin)
	if err != nil {
		return err
	}
	if err := normalize.UnstructuredList(objects); err != nil {
		return err
	}

	poller := polling.NewStatusPoller(cluster, cluster.RESTMapper(), polling.Options{})
	owner := ssa.Owner{Field: "kustomize-controller", Group: "kustomize.toolkit.fluxcd.io"}
	manager := ssa.NewResourceManager(cluster, poller, owner)
	manager.SetConcurrency(4)
	manager.SetOwnerLabels(objects, *name, *namespace)

	options := ssa.DefaultApplyOptions()
	options.WaitInterval = 500 * time.Millisecond
	options.Cleanup = ssa.ApplyCleanupOptions{
		Annotations: []string{corev1.LastAppliedConfigAnnotation},
		FieldManagers: []ssa.FieldManager{
			{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationApply},
			{Name: "kubectl", OperationType: metav1.ManagedFieldsOperationUpdate},
			{Name: "before-first-apply", OperationType: metav1.ManagedFieldsOperationUpdate},
		},
	}
	if group, kind, found := strings.Cut(*stage, "/"); found {
		options.CustomStageKinds = map[schema.GroupKind]struct{}{{Group: group, Kind: kind}: {}}
	}
	changes, err := manager.ApplyAllStaged(context.Background(), objects, options)
	if err != nil {
		return err
	}
	for _, change := range changes.Entries {
		fmt.Println(change.String())
	}
	if !*wait {
		return nil
	}
	return manager.WaitForSet(changes.ToObjMetadataSet(), ssa.WaitOptions{
		Interval: 200 * time.Millisecond, Timeout: time.Minute, FailFast: true,
	})
}
