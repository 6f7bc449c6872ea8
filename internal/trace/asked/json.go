package asked

import "encoding/json"

// MarshalJSON writes the Service in the words of Kubernetes, "namespace" and "name"; model.Key has no names for JSON.
func (q Question) MarshalJSON() ([]byte, error) {
	type plain Question
	type key struct {
		Namespace string `json:"namespace"`
		Name      string `json:"name"`
	}
	return json.Marshal(struct {
		plain
		Service key `json:"service,omitzero"`
	}{plain(q), key(q.Service)})
}
