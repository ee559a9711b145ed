// Syncs manifests as Argo CD does for one Application: the same engine, with the pause between waves that Argo CD's
// controller makes.
//
//	argo -name NAME -namespace NAMESPACE [-server-side] [-prune] <MANIFESTS
//
// Ends with 1 when Argo CD would say that the sync failed; what it would say of each resource is printed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/argoproj/gitops-engine/pkg/cache"
	"github.com/argoproj/gitops-engine/pkg/engine"
	"github.com/argoproj/gitops-engine/pkg/sync"
	"github.com/argoproj/gitops-engine/pkg/sync/common"
	"github.com/argoproj/gitops-engine/pkg/utils/kube"
	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
)

// By which Argo CD knows what belongs to an Application.
const tracking = "argocd.argoproj.io/tracking-id"

// ARGOCD_SYNC_WAVE_DELAY, unless set.
const betweenWaves = 2 * time.Second

func main() {
	klog.SetOutput(io.Discard)
	klog.LogToStderr(false)
	if err := reconcile(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func reconcile() error {
	name := flag.String("name", "", "name of the Application")
	namespace := flag.String("namespace", "", "namespace of what it deploys")
	serverSide := flag.Bool("server-side", false, "as syncOptions: [ServerSideApply=true]")
	prune := flag.Bool("prune", false, "as syncPolicy.automated.prune")
	flag.Parse()

	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	if err != nil {
		return err
	}
	manifests, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	objects, err := kube.SplitYAML(manifests)
	if err != nil {
		return err
	}
	id := func(group, kind, object string) string {
		return fmt.Sprintf("%s:%s/%s:%s/%s", *name, group, kind, *namespace, object)
	}
	for _, object := range objects {
		annotations := object.GetAnnotations()
		if annotations == nil {
			annotations = map[string]string{}
		}
		kind := object.GroupVersionKind()
		annotations[tracking] = id(kind.Group, kind.Kind, object.GetName())
		object.SetAnnotations(annotations)
	}

	cluster := cache.NewClusterCache(config,
		cache.SetNamespaces([]string{*namespace}),
		cache.SetLogr(logr.Discard()),
		cache.SetPopulateResourceInfoHandler(func(object *unstructured.Unstructured, _ bool) (any, bool) {
			tracked := object.GetAnnotations()[tracking]
			return tracked, tracked != ""
		}),
	)
	argo := engine.NewEngine(config, cluster, engine.WithLogr(logr.Discard()))
	stop, err := argo.Run()
	if err != nil {
		return err
	}
	defer stop()
	isManaged := func(resource *cache.Resource) bool {
		key := resource.ResourceKey()
		return resource.Info == id(key.Group, key.Kind, key.Name)
	}
	pause := func(_ common.SyncPhase, _ int, final bool) error {
		if !final {
			time.Sleep(betweenWaves)
		}
		return nil
	}
	within, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	results, err := argo.Sync(within, objects, isManaged, "main", *namespace,
		sync.WithPrune(*prune), sync.WithServerSideApply(*serverSide), sync.WithServerSideApplyManager("argocd-controller"),
		sync.WithSyncWaveHook(pause), sync.WithLogr(logr.Discard()))
	for _, result := range results {
		fmt.Printf("%s %s %s: %s\n", result.ResourceKey.Kind, result.ResourceKey.Name, result.Status, result.Message)
		if result.Status == common.ResultCodeSyncFailed || result.HookPhase == common.OperationFailed {
			err = errors.Join(err, errors.New(result.Message))
		}
	}
	return err
}
