package gateway

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"hythe.dev/hythe/internal/model"
)

const openSHA = "{SHA}aNTWVy9KLvNcfCtkPLSKPX5XzLo=" // of 20 bytes, any

func TestReadUsers(t *testing.T) {
	for in, want := range map[string]string{ // what the error has after "!"
		"ada:" + openSHA:                    "ada:" + openSHA + "\n",
		"# c\n\n ada:" + openSHA + "\r\n":   "ada:" + openSHA + "\n",
		"ada:" + openSHA + ":comment":       "ada:" + openSHA + "\n",
		"ada:{PLAIN}a":                      "ada:{SHA}hvfkN/qlp/zhXR3cuerq6jd2Z7g=\n",
		"ada:" + openSHA + "\nada:{PLAIN}b": "ada:" + openSHA + "\n",
		"ada:$2y$05$x":                      "!a bcrypt hash that is none",
		"ada:$apr1$x$y":                     "!an MD5 hash that is none",
		"ada:{SSHA}eA==":                    "!{SSHA} hash that is none",
		"ada:ZQCk8bPvZC0uA":                 "!DES",
		"ada:x":                             "!unknown kind",
		"ada:{SHA}short":                    "!that is none",
		"ada:{PLAIN}":                       "!empty password",
		"ada":                               "!line 1",
		":" + openSHA:                       "!line 1",
		"a\x01b:" + openSHA:                 "!line 1",
		"#":                                 "!has no user",
		strings.Repeat("u:{PLAIN}x\n", 3):   "u:{SHA}EfatjsUqKYSrqv18O1FlA3hcIHI=\n",
	} {
		users, err := readUsers(&corev1.Secret{Data: map[string][]byte{"auth": []byte(in)}}, false)
		got, _ := forEnvoy(users)
		if message, bad := strings.CutPrefix(want, "!"); bad {
			if err == nil || !strings.Contains(err.Error(), message) || got != "" {
				t.Errorf("%q: %q %v, want %s", in, got, err, message)
			}
			if err != nil && strings.Contains(err.Error(), "ada") {
				t.Errorf("the error quotes the Secret: %v", err)
			}
		} else if err != nil || got != want {
			t.Errorf("%q: %q %v, want %q", in, got, err, want)
		}
	}
}

// TestUsersOfOtherKinds wants users whom Envoy cannot tell to go to the doorkeeper, all of them.
func TestUsersOfOtherKinds(t *testing.T) {
	text := "ada:" + openSHA + "\nbob:$apr1$saltsalt$HIDXe7D36X22w1CH4M1cQ."
	users, err := readUsers(&corev1.Secret{Data: map[string][]byte{"auth": []byte(text)}}, false)
	if err != nil || len(users) != 2 {
		t.Fatalf("%v, %v", users, err)
	}
	if got, ok := forEnvoy(users); ok || got != "" {
		t.Errorf("Envoy gets %q", got)
	}
}

// TestUsersChange wants a Build after users changed, and what is shown to people without them.
func TestUsersChange(t *testing.T) {
	key := model.Key{Namespace: "shop", Name: "users"}
	ing := &networkingv1.Ingress{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Annotations: map[string]string{
		"nginx.ingress.kubernetes.io/auth-type": "basic", "nginx.ingress.kubernetes.io/auth-secret": "users",
	}}}
	ing.Spec.Rules = []networkingv1.IngressRule{{Host: "a.test", IngressRuleValue: networkingv1.IngressRuleValue{
		HTTP: &networkingv1.HTTPIngressRuleValue{Paths: []networkingv1.HTTPIngressPath{{Path: "/", Backend: networkingv1.IngressBackend{
			Service: &networkingv1.IngressServiceBackend{Name: "web", Port: networkingv1.ServiceBackendPort{Number: 80}},
		}}}},
	}}}
	s := &model.Snapshot{
		Ingresses: model.ObjectsOf(map[model.Key]*networkingv1.Ingress{{Namespace: "shop", Name: "web"}: ing}),
		Services: model.ObjectsOf(map[model.Key]*corev1.Service{{Namespace: "shop", Name: "web"}: {
			Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
		}}),
		Secrets: model.ObjectsOf(map[model.Key]*corev1.Secret{key: {Data: map[string][]byte{"auth": []byte("ada:" + openSHA)}}}),
	}
	cache := new(Cache)
	config, _ := cache.Build(s, Settings{WithoutClass: true})
	text := config.String()
	if !strings.Contains(text, "basic-auth") || strings.Contains(text, "ada") || strings.Contains(text, "SHA") {
		t.Error(text)
	}
	next := *s
	if !cache.Unaffected(&next) {
		t.Error("the same objects are another Build")
	}
	next.Secrets = s.Secrets.Without(key)
	if cache.Unaffected(&next) {
		t.Error("users are gone, and nothing is built")
	}
	config, _ = cache.Build(&next, Settings{WithoutClass: true})
	if text := config.String(); !strings.Contains(text, "status 503") {
		t.Error(text)
	}
}
